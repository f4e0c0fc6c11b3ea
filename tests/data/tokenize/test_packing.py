"""Packing: which examples a convention makes of documents, written out by hand."""

from collections import Counter
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdpipe.data.dataset import EncodedDataset
from mdpipe.data.parallel import WORKERS
from mdpipe.data.splits import SPLITS
from mdpipe.data.tokenize.text import encode_corpus
from mdpipe.data.training_batches import training_batch
from mdpipe.params.data import PACKINGS, Packing
from tests.data.builders import encode_text, last, make_tokenizer, windows
from tests.data.shards import make_documents, write_texts

BYTES, TEXT8 = make_tokenizer("bytes"), make_tokenizer("text8")
DOCUMENTS = ["abc", "", "de", "fghij"]
END = "\0"
"""The end of text among bytes."""


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    monkeypatch.setenv(WORKERS, "1")


def corpus(directory, texts, length, packing, tokenizer=BYTES, shards=1):
    encode_corpus(
        write_texts(directory / "r", make_documents(texts), shards), tokenizer, directory / "e", length, packing
    )
    return EncodedDataset.open(directory / "e", "test")


def examples(dataset, tokenizer=BYTES):
    """What evaluation reads, example by example, as text."""
    return [tokenizer.decode(row) for _, tokens in dataset.evaluation_batches(2) for row in tokens]


def counts(dataset):
    return tuple(dataset.counts[what] for what in ("tokens", "bytes", "characters"))


class TestExamples:
    """The stream with ends is abc.|.|de.|fghij. where each point is an end: 14 tokens, 10 of them letters."""

    def test_a_stream_has_every_token_once_and_a_short_end(self, tmp_path):
        dataset = corpus(tmp_path, DOCUMENTS, 4, PACKINGS["stream"])
        assert examples(dataset) == ["abc\0", "\0de\0", "fghi", "j\0"]
        assert counts(dataset) == (14, 10, 10)

    def test_sedd_appends_the_end_of_text_and_drops_the_remainder(self, tmp_path):
        dataset = corpus(tmp_path, DOCUMENTS, 4, PACKINGS["sedd"])
        assert examples(dataset) == ["abc\0", "\0de\0", "fghi"]
        assert counts(dataset) == (12, 9, 9)

    def test_mdlm_wraps_each_window_in_the_end_of_text_as_well(self, tmp_path):
        dataset = corpus(tmp_path, DOCUMENTS, 5, PACKINGS["mdlm"])
        assert examples(dataset) == ["\0abc\0", "\0\0\0d\0", "\0e\0f\0", "\0ghi\0"]
        assert counts(dataset) == (20, 9, 9)

    def test_mdlm_zero_shot_has_it_only_there(self, tmp_path):
        dataset = corpus(tmp_path, DOCUMENTS, 5, PACKINGS["mdlm_zero_shot"])
        assert examples(dataset) == ["\0abc\0", "\0def\0", "\0ghi\0"]
        assert counts(dataset) == (15, 9, 9)

    def test_text8_is_one_text_in_blocks(self, tmp_path):
        dataset = corpus(tmp_path, DOCUMENTS, 5, PACKINGS["text8"], TEXT8)
        assert examples(dataset, TEXT8) == ["abc d", "e fgh"]
        assert counts(dataset) == (10, 10, 10)

    def test_a_convention_of_one_s_own(self, tmp_path):
        dataset = corpus(tmp_path, DOCUMENTS, 4, Packing(append_eos=False))
        assert examples(dataset) == ["abcd", "efgh", "ij"]
        assert counts(dataset) == (10, 10, 10)

    @pytest.mark.parametrize("convention", PACKINGS)
    @pytest.mark.parametrize("tokenizer", [BYTES, TEXT8], ids=lambda tokenizer: tokenizer.kind)
    def test_shards_change_nothing(self, tmp_path, convention, tokenizer):
        one = corpus(tmp_path / "one", DOCUMENTS, 5, PACKINGS[convention], tokenizer)
        four = corpus(tmp_path / "four", DOCUMENTS, 5, PACKINGS[convention], tokenizer, shards=4)
        assert examples(one, tokenizer) == examples(four, tokenizer)
        assert one.counts == four.counts


def test_shards_beyond_the_last_block_are_left_out_as_a_whole(tmp_path):
    dataset = corpus(tmp_path, ["abcdef", "h", "ijk"], 7, PACKINGS["sedd"], shards=3)
    assert examples(dataset) == ["abcdef\0"]
    assert counts(dataset) == (7, 6, 6)


@pytest.mark.parametrize(
    ("convention", "expected"),
    [
        ("stream", ["\0a\0\0", "\0"]),
        ("sedd", ["\0a\0\0"]),
        ("mdlm", ["\0\0a\0", "\0\0\0\0"]),
        ("text8", []),
        ("mdlm_zero_shot", []),
    ],
)
def test_an_empty_document_is_kept_by_its_end_only(tmp_path, convention, expected):
    texts, packing = ["", "a", "", ""], PACKINGS[convention]
    if not expected:
        with pytest.raises(ValueError, match="no token is left of the test split"):
            corpus(tmp_path, texts, 4, packing)
        return
    dataset = corpus(tmp_path, texts, 4, packing)
    assert examples(dataset) == expected
    assert dataset.counts["documents"] == 4


@pytest.mark.parametrize("convention", PACKINGS)
def test_a_token_of_text8_is_a_character_of_the_text(tmp_path, convention):
    """Ends of documents and of blocks included, so bits per token are bits per character and per byte."""
    dataset = corpus(tmp_path, DOCUMENTS, 4, PACKINGS[convention], TEXT8)
    tokens, size, characters = counts(dataset)
    assert tokens == size == characters == len("".join(examples(dataset, TEXT8)))


@pytest.mark.parametrize(
    ("convention", "are_fixed"), [("stream", False), ("text8", False), ("sedd", True), ("mdlm", True)]
)
def test_training_on_text8_reads_windows_that_start_anywhere(tmp_path, convention, are_fixed):
    """As the official code does, although evaluation drops the last, shorter window; others keep to the blocks."""
    length = 8
    dataset = corpus(tmp_path, ["abcdefghijklmnopqrstuvwxyz" * 20], length, PACKINGS[convention], TEXT8)
    stream = dataset.tokens[: dataset.stream_tokens * (len(dataset.tokens) // dataset.stream_tokens)]
    blocks = {tuple(block) for block in dataset.windows(np.arange(0, len(stream), dataset.stream_tokens)).tolist()}
    read = {tuple(row) for step in range(20) for row in training_batch(dataset, 0, step, 16).tolist()}
    assert (read <= blocks) == are_fixed


def test_block_ends_need_whole_blocks():
    with pytest.raises(ValueError, match=r"wrap_with_eos needs windows of one length: set drop_last to true"):
        Packing(wrap_with_eos=True)


@pytest.mark.parametrize(
    ("length", "kept"), [(2, "n\u00e9\u00fc"), (3, "n\u00e9\u00fc"), (4, "n\u00e9"), (5, "n\u00e9")]
)
def test_a_character_counts_where_all_of_it_is_read(tmp_path, length, kept):
    """6e c3 a9 00 c3 bc 00 in bytes: blocks of 4 or 5 leave out all or half of the last character."""
    dataset = corpus(tmp_path, ["n\u00e9", "\u00fc"], length, PACKINGS["sedd"])
    assert counts(dataset) == (7 // length * length, len(kept.encode()), len(kept))


some_texts = st.lists(st.text(st.sampled_from("ab \u00e9\u6f22\U0001f600"), max_size=12), min_size=4, max_size=8)


@settings(max_examples=30)
@given(texts=some_texts, length=st.integers(3, 9), convention=st.sampled_from(["stream", "sedd", "mdlm"]))
def test_counts_are_those_of_what_is_read(tmp_path_factory, texts, length, convention):
    """In bytes, where blocks end within characters: what is complete of the tokens that are no ends."""
    folder = tmp_path_factory.mktemp("counts")
    stream = b"".join(text.encode() + b"\0" for text in texts)
    content = PACKINGS[convention].stream_tokens(length)
    if not stream[: len(stream) // content * content].replace(b"\0", b"").decode(errors="ignore"):
        return
    dataset = corpus(folder, texts, length, PACKINGS[convention], shards=2)
    read = bytes(np.asarray(dataset.tokens).astype(np.uint8)).replace(b"\0", b"").decode(errors="ignore")
    assert counts(dataset) == (sum(map(len, examples_of_ids(dataset))), len(read.encode()), len(read))


def examples_of_ids(dataset):
    return [row for _, tokens in dataset.evaluation_batches(3) for row in tokens]


@settings(max_examples=30)
@given(texts=some_texts, length=st.integers(1, 9))
def test_windows_assigned_to_splits_add_up_to_the_text(tmp_path_factory, texts, length):
    """Every character once, wherever blocks end."""
    folder = tmp_path_factory.mktemp("chunks")
    raw = write_texts(folder / "r", make_documents(["train" * 20, *texts]), 2)
    encode_text(raw, BYTES, folder / "e", length, 0, windows(0.4), windows(0.3))
    found = [EncodedDataset.open(folder / "e", split) for split in SPLITS]
    whole = "train" * 20 + "".join(texts)
    total = [sum(dataset.counts[what] for dataset in found) for what in ("tokens", "bytes", "characters")]
    assert total == [len(whole.encode()) + len(texts) + 1, len(whole.encode()), len(whole)]


@pytest.mark.parametrize("kind", ["text8", "bytes", "sentencepiece"])
@pytest.mark.parametrize("convention", PACKINGS)
def test_unigram_counts_are_those_of_what_training_reads(tmp_path, texts, subwords, kind, convention):
    tokenizer = subwords if kind == "sentencepiece" else make_tokenizer(kind)
    raw = write_texts(tmp_path / "r", make_documents(texts), 3)
    encode_text(raw, tokenizer, tmp_path / "e", 32, 0, last(8), last(8), PACKINGS[convention])
    dataset = EncodedDataset.open(tmp_path / "e", "train")
    read = np.concatenate(examples_of_ids(dataset))
    assert dataset.unigram().tolist() == np.bincount(read, minlength=dataset.vocab_size).tolist()
    assert dataset.counts["tokens"] == len(read)


class TestTraining:
    @pytest.fixture(params=["sedd", "mdlm"])
    def dataset(self, request, tmp_path, texts):
        raw = write_texts(tmp_path / "r", make_documents(texts), 5)
        encode_text(raw, BYTES, tmp_path / "e", 16, 0, last(5), last(5), PACKINGS[request.param])
        return EncodedDataset.open(tmp_path / "e", "train")

    @pytest.mark.parametrize("batch_size", [1, 7, 64])
    def test_every_epoch_has_each_block_once_in_another_order(self, dataset, batch_size):
        count = dataset.examples
        steps = 3 * count // batch_size + 1
        rows = list(chain.from_iterable(training_batch(dataset, 5, step, batch_size).tolist() for step in range(steps)))
        epochs = [list(map(tuple, rows[epoch * count : (epoch + 1) * count])) for epoch in range(3)]
        everything = Counter(map(tuple, map(np.ndarray.tolist, examples_of_ids(dataset))))
        assert all(Counter(epoch) == everything for epoch in epochs)
        assert len(set(map(tuple, epochs))) == 3

    @pytest.mark.parametrize("workers", [2, 3])
    def test_rows_do_not_depend_on_their_division_among_workers(self, dataset, workers):
        for step in (0, 1, dataset.examples // 8):
            whole = training_batch(dataset, 5, step, 12)
            for worker in range(workers):
                rows = range(worker, 12, workers)
                assert np.array_equal(training_batch(dataset, 5, step, 12, rows), whole[list(rows)])

    def test_blocks_do_not_depend_on_how_they_are_cut_in_shards(self, dataset, tmp_path, texts):
        packing = PACKINGS["mdlm" if dataset.wrap_ids else "sedd"]
        raw = write_texts(tmp_path / "one", make_documents(texts))
        encode_text(raw, BYTES, tmp_path / "f", 16, 0, last(5), last(5), packing)
        one = EncodedDataset.open(tmp_path / "f", "train")
        assert np.array_equal(training_batch(one, 5, 3, 20), training_batch(dataset, 5, 3, 20))
