"""Encoding: what the written folders hold."""

import json
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdpipe.data.dataset import EncodedDataset
from mdpipe.data.raw import Document, ImageBatch
from mdpipe.data.splits import SPLITS
from mdpipe.data.tokenize.text import encode_corpus
from mdpipe.data.tokenizers import load_tokenizer
from tests.data.builders import document_ids, encode_images, encode_text, last, make_tokenizer, windows
from tests.data.shards import splits_of, write_raw


@pytest.fixture(params=["text8", "bytes", "sentencepiece"])
def tokenizer(request, subwords):
    return subwords if request.param == "sentencepiece" else make_tokenizer(request.param)


def folder_bytes(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


class TestText:
    def test_a_split_is_its_documents_with_their_separators(self, raw_text, texts, tmp_path, tokenizer):
        raw = raw_text(texts)
        encode_text(raw, tokenizer, tmp_path / "e", 16, 5, 0.2, 0.2)
        splits = splits_of(raw, 5, 0.2, 0.2)
        for name in SPLITS:
            ids = [
                [*document_ids(tokenizer, text), tokenizer.eos_id]
                for text, split in zip(texts, splits, strict=True)
                if split == name
            ]
            dataset = EncodedDataset.open(tmp_path / "e", name)
            assert dataset.tokens.tolist() == list(chain.from_iterable(ids))
            assert dataset.counts["documents"] == len(ids)

    def test_counts_are_those_of_what_the_tokens_decode_to(self, raw_text, texts, tmp_path, tokenizer):
        encode_text(raw_text(texts), tokenizer, tmp_path / "e", 16, 5, 0.2, 0.2)
        for name in SPLITS:
            dataset = EncodedDataset.open(tmp_path / "e", name)
            kept = dataset.tokens
            if tokenizer.is_lossless:
                kept = kept[kept != tokenizer.eos_id]
            decoded = tokenizer.decode(kept)
            assert dataset.counts["characters"] == len(decoded)
            assert dataset.counts["bytes"] == len(decoded.encode())
            assert dataset.counts["tokens"] == len(dataset.tokens)

    def test_the_header_says_what_the_tokens_are(self, raw_text, texts, tmp_path, tokenizer):
        encode_text(raw_text(texts), tokenizer, tmp_path / "e", 16, 5, 0.2, 0.2)
        dataset = EncodedDataset.open(tmp_path / "e", "train")
        assert (dataset.modality, dataset.shape, dataset.seq_len) == ("text", (16,), 16)
        assert (dataset.tokenizer, dataset.vocab_size) == (tokenizer.kind, tokenizer.vocab_size)
        assert dataset.tokens.dtype == (np.uint16 if tokenizer.vocab_size > 256 else np.uint8)
        assert dataset.unigram().tolist() == np.bincount(dataset.tokens, minlength=dataset.vocab_size).tolist()
        assert load_tokenizer(tmp_path / "e").encode("the model").tolist() == tokenizer.encode("the model").tolist()

    def test_equal_input_makes_equal_bytes_in_any_folder(self, raw_text, texts, tmp_path, tokenizer):
        raw = raw_text(texts)
        for folder in ("here", "elsewhere/deep"):
            encode_text(raw, tokenizer, tmp_path / folder, 16, 5, 0.2, 0.2)
        assert folder_bytes(tmp_path / "here") == folder_bytes(tmp_path / "elsewhere" / "deep")

    def test_a_foreign_corpus_is_one_split_of_all_its_documents(self, raw_text, texts, tmp_path, tokenizer):
        encode_corpus(raw_text(texts[:2]), tokenizer, tmp_path / "e", 16)
        dataset = EncodedDataset.open(tmp_path / "e", "test")
        expected = [id for text in texts[:2] for id in [*document_ids(tokenizer, text), tokenizer.eos_id]]
        assert dataset.tokens.tolist() == expected
        with pytest.raises(ValueError, match="no split 'train'; it has test"):
            EncodedDataset.open(tmp_path / "e", "train")


def test_copies_of_a_document_are_never_on_two_sides(raw_text, texts, tmp_path):
    encode_text(raw_text([*texts, *texts]), make_tokenizer("bytes"), tmp_path / "e", 16, 5, 0.2, 0.2)
    documents = [set(bytes(EncodedDataset.open(tmp_path / "e", split).tokens).split(b"\0")) - {b""} for split in SPLITS]
    assert sum(map(len, documents)) == len(texts)
    assert len(set.union(*documents)) == len(texts)


def test_a_document_of_which_nothing_is_left_gets_no_separator(raw_text, tmp_path):
    encode_corpus(raw_text(["one", "漢字", "two"]), make_tokenizer("text8"), tmp_path / "e", 4)
    dataset = EncodedDataset.open(tmp_path / "e", "test")
    assert make_tokenizer("text8").decode(dataset.tokens) == "one two "
    assert dataset.counts["documents"] == 2


def test_a_corpus_of_which_nothing_is_left_is_refused(raw_text, tmp_path):
    with pytest.raises(ValueError, match=r"no token is left of the test split: .*'text8'"):
        encode_corpus(raw_text(["漢字"]), make_tokenizer("text8"), tmp_path / "e", 4)


@pytest.mark.parametrize(
    ("texts", "validation", "test", "message"),
    [
        (["one", "two", "漢字"], last(1), last(1), r"test split: the tokenizer 'text8' drops all of its text"),
        (
            ["one", "two", "three"],
            0.3,
            last(2),
            "no document of the source is in the (train|validation) split; correct",
        ),
        (
            ["one two three four five six"],
            windows(0.01),
            windows(0.9),
            r"no window of seq_len = 4 is in the validation split",
        ),
    ],
)
def test_a_split_without_text_is_explained(raw_text, tmp_path, texts, validation, test, message):
    with pytest.raises(ValueError, match=message):
        encode_text(raw_text(texts), make_tokenizer("text8"), tmp_path / "e", 4, 0, validation, test)


def test_a_split_of_empty_documents_is_explained(raw_text, tmp_path):
    with pytest.raises(ValueError, match="test split has 1 tokens and no character: its documents are empty"):
        encode_text(raw_text(["one", "two", ""]), make_tokenizer("bytes"), tmp_path / "e", 4, 0, last(1), last(1))


def test_text_shorter_than_a_window_leaves_nothing(raw_text, texts, tmp_path):
    with pytest.raises(ValueError, match="fewer than one window of seq_len = 100000; lower"):
        encode_text(raw_text(texts), make_tokenizer("bytes"), tmp_path / "e", 100_000, 5, 0.2, 0.2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw"]


def write_numbered(directory, count, height, width):
    """ImageBatch filled with their group's number; a group is two images in a row."""
    groups = np.arange(count, dtype=np.int32) // 2
    images = np.broadcast_to(groups[:, None, None, None], (count, height, width, 1)).astype(np.uint8)
    write_raw(directory, "npy", ImageBatch(images, groups, maximum=255))
    return images, groups


@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(8, 60),
    height=st.integers(4, 9),
    width=st.integers(4, 9),
    size=st.integers(2, 4),
    stride=st.integers(1, 4),
    seed=st.integers(0, 5),
)
def test_training_tiles_never_share_a_pixel_with_held_out_tiles(
    tmp_path_factory, count, height, width, size, stride, seed
):
    """Every pixel carries the number of its group, so a shared pixel would be a shared number."""
    directory = tmp_path_factory.mktemp("tiles")
    write_numbered(directory / "raw", count, height, width)
    encode_images(directory / "raw", 256, size, stride, directory / "e", seed, 0.2, 0.2)
    numbers = [set(np.unique(EncodedDataset.open(directory / "e", split).tokens)) for split in SPLITS]
    assert all(numbers)
    assert sum(map(len, numbers)) == len(set.union(*numbers)) == (count + 1) // 2


def test_held_out_tiles_never_overlap_and_training_tiles_do(tmp_path):
    """Every pixel is different, so an overlap would be a repeated value."""
    images = np.arange(5 * 6 * 8, dtype=np.uint8).reshape(5, 6, 8, 1)
    write_raw(tmp_path / "raw", "npy", ImageBatch(images, np.arange(5, dtype=np.int32), 255))
    encode_images(tmp_path / "raw", 256, 4, 2, tmp_path / "e", 0, 0.2, 0.2)
    for split in ("validation", "test"):
        tokens = EncodedDataset.open(tmp_path / "e", split).tokens
        assert tokens.shape == (2, 16)
        assert len(np.unique(tokens)) == tokens.size
    tokens = EncodedDataset.open(tmp_path / "e", "train").tokens
    assert tokens.shape == (3 * 2 * 3, 16)
    assert len(np.unique(tokens)) == 3 * 6 * 8


def test_images_are_quantized_and_laid_out_by_row_column_channel(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (10, 4, 5, 3), dtype=np.uint8)
    write_raw(tmp_path / "raw", "npy", ImageBatch(images, np.arange(10, dtype=np.int32), 255))
    encode_images(tmp_path / "raw", 8, 4, 1, tmp_path / "e", 0, 0.1, 0.1)
    dataset = EncodedDataset.open(tmp_path / "e", "train")
    assert (dataset.modality, dataset.shape, dataset.seq_len) == ("image", (4, 4, 3), 48)
    assert (dataset.tokenizer, dataset.vocab_size) == ("pixels", 8)
    assert dataset.counts == {"images": 16, "tokens": 16 * 48, "tiles_per_image": 2}
    tiles = {(image[:, left : left + 4] // 32).tobytes() for image in images for left in (0, 1)}
    assert {row.tobytes() for row in dataset.tokens} <= tiles
    assert dataset.unigram().tolist() == np.bincount(dataset.tokens.ravel(), minlength=8).tolist()


def test_equal_images_make_equal_bytes_in_any_folder(tmp_path):
    write_numbered(tmp_path / "raw", 20, 4, 4)
    for folder in ("here", "elsewhere"):
        encode_images(tmp_path / "raw", 16, 4, 4, tmp_path / folder, 0, 0.1, 0.1)
    assert folder_bytes(tmp_path / "here") == folder_bytes(tmp_path / "elsewhere")
    assert set(folder_bytes(tmp_path / "here")) == {
        "dataset.json",
        "manifest.json",
        "manifest.parquet",
        "train-00000.npy",
        "validation-00000.npy",
        "test-00000.npy",
        "unigram.npy",
    }


def test_no_path_is_inside_the_written_files(texts, subwords, tmp_path):
    write_raw(tmp_path / "secretplace", "jsonl", [Document(f"{i:02d}", text) for i, text in enumerate(texts)])
    encode_text(tmp_path / "secretplace", subwords, tmp_path / "e", 16, 5, 0.2, 0.2)
    assert not [name for name, content in folder_bytes(tmp_path / "e").items() if b"secretplace" in content]
    assert json.loads((tmp_path / "e" / "dataset.json").read_text())["splits"].keys() == set(SPLITS)
