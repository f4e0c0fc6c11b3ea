"""Encoded datasets: reading everything once, and refusing what is damaged."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mdpipe.data.dataset import EncodedDataset, evenly_spaced, token_dtype

reuse_the_dataset = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@pytest.mark.parametrize(
    ("vocabulary", "dtype"), [(2, "uint8"), (256, "uint8"), (257, "uint16"), (65_536, "uint16"), (65_537, "uint32")]
)
def test_tokens_take_the_smallest_type_that_fits(vocabulary, dtype):
    assert token_dtype(vocabulary) == np.dtype(dtype)


@given(count=st.integers(1, 1000), most=st.integers(1, 1000))
def test_evenly_spaced_indices_differ_and_begin_with_the_first(count, most):
    indices = evenly_spaced(count, most)
    assert len(set(indices.tolist())) == min(count, most)
    assert indices[0] == 0 and indices[-1] == (count - 1 if most > 1 else 0)
    assert len(indices) < 3 or np.ptp(np.diff(indices)) <= 1


@reuse_the_dataset
@given(batch_size=st.integers(1, 50))
@pytest.mark.parametrize("split", ["validation", "test"])
def test_evaluation_reads_each_token_of_a_text_once_in_order(text_dataset, split, batch_size):
    dataset = EncodedDataset.open(text_dataset, split)
    batches = list(dataset.evaluation_batches(batch_size))
    assert np.concatenate([tokens.ravel() for _, tokens in batches]).tolist() == dataset.tokens.tolist()
    assert np.concatenate([indices for indices, _ in batches]).tolist() == list(range(dataset.examples))
    assert sum(len(tokens) for _, tokens in batches) == dataset.examples == -(-len(dataset.tokens) // 32)
    assert all(tokens.dtype == np.int64 and len(tokens) <= batch_size for _, tokens in batches)
    assert all(tokens.shape[1] == 32 for _, tokens in batches[:-1])
    assert batches[-1][1].shape == (1, len(dataset.tokens) % 32)


def test_a_text_of_whole_windows_has_no_short_one(text_dataset):
    _resize(text_dataset, "test", 64)
    batches = list(EncodedDataset.open(text_dataset, "test").evaluation_batches(8))
    assert [(indices.tolist(), tokens.shape) for indices, tokens in batches] == [([0, 1], (2, 32))]


def test_a_text_shorter_than_a_window_is_one_short_window(text_dataset):
    _resize(text_dataset, "test", 7)
    dataset = EncodedDataset.open(text_dataset, "test")
    assert [(indices.tolist(), tokens.shape) for indices, tokens in dataset.evaluation_batches(8)] == [([0], (1, 7))]
    assert dataset.examples == 1


@reuse_the_dataset
@given(batch_size=st.integers(1, 40))
def test_evaluation_reads_each_image_once_in_order(image_dataset, batch_size):
    dataset = EncodedDataset.open(image_dataset, "train")
    batches = list(dataset.evaluation_batches(batch_size))
    assert np.array_equal(np.concatenate([tokens for _, tokens in batches]), dataset.tokens)
    assert dataset.examples == len(dataset.tokens)


def test_tokens_stay_on_disk(text_dataset):
    assert isinstance(EncodedDataset.open(text_dataset, "train").tokens, np.memmap)


def _resize(directory, split, count):
    """Cut a text split to its first tokens, header and counts included."""
    np.save(directory / f"{split}-00000.npy", np.load(directory / f"{split}-00000.npy")[:count])
    header = json.loads((directory / "dataset.json").read_text())
    header["splits"][split]["tokens"] = count
    (directory / "dataset.json").write_text(json.dumps(header))


def test_a_split_that_is_not_there_is_named_with_those_that_are(text_dataset):
    with pytest.raises(ValueError, match="no split 'dev'; it has test, train, validation"):
        EncodedDataset.open(text_dataset, "dev")


def test_a_truncated_split_is_named_with_a_hint(text_dataset):
    path = text_dataset / "train-00000.npy"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match=r"train-00000\.npy .*run `dvc repro encode@words` again"):
        EncodedDataset.open(text_dataset, "train")


@pytest.mark.parametrize(
    "tokens", [np.zeros(5, np.uint8), np.zeros((5, 32), np.uint8), np.zeros(0, np.uint8), np.zeros(5, np.int64)]
)
def test_a_text_unlike_its_header_is_named_with_a_hint(text_dataset, tokens):
    np.save(text_dataset / "train-00000.npy", tokens)
    with pytest.raises(ValueError, match=r"train-00000\.npy .*run `dvc repro encode@words` again"):
        EncodedDataset.open(text_dataset, "train")


def test_images_that_contradict_the_header_are_named_with_a_hint(image_dataset):
    np.save(image_dataset / "test-00000.npy", np.zeros((3, 15), np.uint8))
    with pytest.raises(
        ValueError, match=r"test-00000\.npy should be uint8 \(3, 16\) .*`dvc repro encode@numbers` again"
    ):
        EncodedDataset.open(image_dataset, "test")


@pytest.mark.parametrize("key", ["modality", "vocab_size", "shape", "seq_len", "tokenizer", "classes", "splits"])
def test_an_incomplete_header_is_named_with_a_hint(text_dataset, key):
    header = json.loads((text_dataset / "dataset.json").read_text())
    del header[key]
    (text_dataset / "dataset.json").write_text(json.dumps(header))
    with pytest.raises(ValueError, match=rf"dataset\.json: {key}: Field required; run `dvc repro encode@words` again"):
        EncodedDataset.open(text_dataset, "train")


@pytest.mark.parametrize("value", [None, "3", -1, 1.5, [0], {"train": 3}], ids=str)
@pytest.mark.parametrize("key", ["modality", "vocab_size", "shape", "seq_len", "classes", "drop_last", "splits"])
def test_a_key_of_another_type_is_named_with_a_hint(text_dataset, key, value):
    header = json.loads((text_dataset / "dataset.json").read_text())
    (text_dataset / "dataset.json").write_text(json.dumps(header | {key: value}))
    with pytest.raises(ValueError, match=rf"dataset\.json: {key}.*; run `dvc repro encode@words` again"):
        EncodedDataset.open(text_dataset, "train")


def test_a_text_encoded_without_boundaries_names_the_stage(text_dataset):
    header = json.loads((text_dataset / "dataset.json").read_text())
    del header["splits"]["train"]["words"]
    (text_dataset / "dataset.json").write_text(json.dumps(header))
    with pytest.raises(ValueError, match=r"without the documents' boundaries .*; run `dvc repro encode@words` again"):
        EncodedDataset.open(text_dataset, "train")


@pytest.mark.parametrize(
    "starts", [None, np.zeros(0, np.int64), np.array([0, 10**9]), np.array([1, 2]), np.array([0, 2], np.int32)]
)
def test_damaged_document_starts_are_named_with_a_hint(text_dataset, starts):
    dataset = EncodedDataset.open(text_dataset, "test")
    path = text_dataset / "test_documents.npy"
    path.unlink() if starts is None else np.save(path, starts)
    with pytest.raises(ValueError, match=r"test_documents\.npy .*run `dvc repro encode@words` again"):
        _ = dataset.document_starts


def test_a_token_beyond_the_vocabulary_is_named_with_a_hint(image_dataset):
    tokens = np.load(image_dataset / "test-00000.npy")
    tokens[1, 2] = 17
    np.save(image_dataset / "test-00000.npy", tokens)
    dataset = EncodedDataset.open(image_dataset, "test")
    with pytest.raises(ValueError, match=r"test-00000\.npy holds the token 17, but the vocabulary has 17; run"):
        list(dataset.evaluation_batches(2))


@pytest.mark.parametrize("counts", [None, np.zeros(3, np.int64), np.zeros(256, np.int32)])
def test_damaged_unigram_counts_are_named_with_a_hint(text_dataset, counts):
    dataset = EncodedDataset.open(text_dataset, "train")
    (text_dataset / "unigram.npy").unlink()
    if counts is not None:
        np.save(text_dataset / "unigram.npy", counts)
    with pytest.raises(ValueError, match=r"unigram\.npy .*`dvc repro encode@words` again"):
        dataset.unigram()


def test_reading_batches_needs_nothing_but_numpy():
    """A machine that only trains has neither the sources' libraries nor SentencePiece."""
    script = (
        "import sys, mdpipe.data.dataset, mdpipe.data.pixels, mdpipe.data.tokenizers as t;"
        "t.Text8();"
        "print(*{'torch', 'PIL', 'sklearn', 'polars', 'sentencepiece', 'scipy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not done.stdout.strip()
