"""Documents within the tokens: where each begins, which examples belong to it, and its words."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdpipe.data.dataset import BLOCKS, EncodedDataset
from mdpipe.data.parallel import WORKERS
from mdpipe.data.splits import SPLITS
from mdpipe.data.tokenize.text import encode_corpus
from mdpipe.params.data import PACKINGS
from tests.data.builders import document_ids, encode_text, last, last_characters, make_tokenizer, windows
from tests.data.shards import by_split, in_parts, make_documents, plan_splits, write_texts

BYTES, TEXT8 = make_tokenizer("bytes"), make_tokenizer("text8")


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    monkeypatch.setenv(WORKERS, "1")


def corpus(directory, documents, length, packing="stream", tokenizer=BYTES, shards=1):
    raw = write_texts(directory / "r", documents, shards)
    encode_corpus(raw, tokenizer, directory / f"e{shards}", length, PACKINGS[packing])
    return EncodedDataset.open(directory / f"e{shards}", "test")


def documents_of(dataset):
    """The tokens of each document."""
    bounds = [*dataset.document_starts.tolist(), len(dataset.tokens)]
    return [np.asarray(dataset.tokens[first:end]).tolist() for first, end in pairwise(bounds)]


words = st.text(st.sampled_from("ab \u00e9\u6f22\n"), max_size=14)
texts = st.lists(words, min_size=3, max_size=8).filter(lambda texts: any("a" in text for text in texts))


@settings(max_examples=40)
@given(
    texts=texts, packing=st.sampled_from(sorted(PACKINGS)), tokenizer=st.sampled_from([BYTES, TEXT8]), data=st.data()
)
def test_a_document_begins_where_its_tokens_do(tmp_path_factory, texts, packing, tokenizer, data):
    """In every packing and any number of shards, in parts as well; what drop_last drops has no document."""
    folder, length = tmp_path_factory.mktemp("d"), 3
    cut = data.draw(st.integers(0, len(texts[0])))
    rest = [part for number, text in enumerate(texts[1:], start=1) for part in in_parts(text, [], f"{number:02d}")]
    documents = [*in_parts(texts[0], [cut], "00"), *rest]
    expected = []
    for text in texts:
        ids = document_ids(tokenizer, text).tolist()
        if PACKINGS[packing].append_eos and (ids or tokenizer.is_lossless):
            ids.append(tokenizer.eos_id)
        elif ids and expected and tokenizer.eos_separates_words:
            ids.insert(0, tokenizer.eos_id)
        if ids:
            expected.append(ids)
    stream = [token for ids in expected for token in ids]
    size = PACKINGS[packing].stream_tokens(length)
    kept = len(stream) // size * size if PACKINGS[packing].drop_last else len(stream)
    if not tokenizer.decode(np.array(stream[:kept], dtype=np.int64)).strip("\0"):
        return
    starts = np.cumsum([0, *map(len, expected)])[:-1]
    for shards in (1, len(documents)):
        dataset = corpus(folder, documents, length, packing, tokenizer, shards)
        assert np.asarray(dataset.tokens).tolist() == stream[:kept]
        assert dataset.document_starts.tolist() == starts[starts < kept].tolist()
        assert dataset.document_starts.dtype == np.int64


@settings(max_examples=40)
@given(texts=texts, cut=st.integers(0, 14), tokenizer=st.sampled_from([BYTES, TEXT8]))
def test_words_are_those_between_white_space(tmp_path_factory, texts, cut, tokenizer):
    """Of every document by itself; for text8 those of its own text. Shards and parts change nothing."""
    documents = in_parts(texts[0], [min(cut, len(texts[0]))], "first") + in_parts("".join(texts[1:]), [], "second")
    whole = [texts[0], "".join(texts[1:])]
    if tokenizer is TEXT8:
        whole = [TEXT8.decode(TEXT8.encode(text)) for text in whole]
    for shards in (1, 3):
        dataset = corpus(tmp_path_factory.mktemp("w"), documents, 4, tokenizer=tokenizer, shards=shards)
        assert dataset.counts["words"] == sum(len(text.split()) for text in whole)


@settings(max_examples=40)
@given(texts=texts, length=st.integers(3, 9), packing=st.sampled_from(["sedd", "mdlm", "mdlm_zero_shot"]))
def test_a_word_counts_if_it_begins_in_what_is_read(tmp_path_factory, texts, length, packing):
    """In bytes: words whose first character ends before the tokens that drop_last drops."""
    end = b"\0" if PACKINGS[packing].append_eos else b""
    size = PACKINGS[packing].stream_tokens(length)
    kept = sum(len(text.encode() + end) for text in texts) // size * size
    count = position = 0
    for text in texts:
        for index, character in enumerate(text):
            position += len(character.encode())
            is_first = character.strip() and not text[max(index - 1, 0) : index].strip()
            count += bool(is_first) and position <= kept
        position += len(end)
    if not b"".join(text.encode() + end for text in texts)[:kept].replace(b"\0", b"").decode(errors="ignore"):
        return
    dataset = corpus(tmp_path_factory.mktemp("w"), make_documents(texts), length, packing, shards=2)
    assert dataset.counts["words"] == count


@settings(max_examples=30)
@given(texts=texts, length=st.integers(1, 9), tokenizer=st.sampled_from([BYTES, TEXT8]))
def test_words_of_windows_add_up_and_windows_have_no_document(tmp_path_factory, texts, length, tokenizer):
    """A word counts in the window that it begins in; neighboring windows are clusters of their own."""
    folder = tmp_path_factory.mktemp("s")
    texts = ["train " * 20, *texts]
    raw = write_texts(folder / "r", make_documents(texts), 2)
    encode_text(raw, tokenizer, folder / "e", length, 0, windows(0.4), windows(0.3))
    found = [EncodedDataset.open(folder / "e", split) for split in SPLITS]
    whole = texts if tokenizer is BYTES else [TEXT8.decode(TEXT8.encode(text)) for text in texts]
    assert sum(dataset.counts["words"] for dataset in found) == sum(len(text.split()) for text in whole)
    for dataset in found:
        assert dataset.document_starts is None
        assert dataset.clusters[0] == "window"
        assert dataset.clusters[1].tolist() == list(range(dataset.examples))


@pytest.mark.parametrize("spec", [last(9), last_characters(700), 0.2], ids=["documents", "characters", "fraction"])
@pytest.mark.parametrize("tokenizer", [BYTES, TEXT8], ids=["bytes", "text8"])
def test_every_split_knows_its_documents(tmp_path, texts, tokenizer, spec):
    """Also one that begins in the split before, of which nothing may be left but its end."""
    raw = write_texts(tmp_path / "r", make_documents(texts), 3)
    encode_text(raw, tokenizer, tmp_path / "e", 16, 5, spec, spec)
    plan = by_split(plan_splits(raw, "text", 5, spec, spec))
    for split in SPLITS:
        dataset = EncodedDataset.open(tmp_path / "e", split)
        decoded = [tokenizer.decode(np.array(ids)).strip(" \0") for ids in documents_of(dataset)]
        normalize = (lambda text: text) if tokenizer is BYTES else (lambda text: TEXT8.decode(TEXT8.encode(text)))
        assert decoded == [normalize(document.text).strip(" ") for document in plan[split]]
        assert dataset.counts["documents"] == sum(bool(set(ids) - {tokenizer.eos_id}) for ids in documents_of(dataset))


class TestClusters:
    def test_a_window_belongs_to_the_document_of_its_middle_token(self, tmp_path):
        """Of 4 tokens each: aaaa aa.b bbbb bb.c ccc. where a point is an end."""
        dataset = corpus(tmp_path, make_documents(["a" * 6, "b" * 7, "cccc"]), 4)
        kind, clusters = dataset.clusters
        assert kind == "document"
        assert clusters.tolist() == [0, 0, 1, 1, 2]

    @pytest.mark.parametrize(("windows", "blocks"), [(3, 3), (BLOCKS, BLOCKS), (95, BLOCKS)])
    def test_one_enormous_document_is_cut_into_blocks(self, tmp_path, windows, blocks):
        dataset = corpus(tmp_path, make_documents(["a" * (4 * windows - 3), "b"]), 4)
        kind, clusters = dataset.clusters
        assert kind == "block"
        assert len(clusters) == dataset.examples == windows
        sizes = np.bincount(clusters)
        assert len(sizes) == blocks
        assert sizes.max() - sizes.min() <= 1
        assert (np.diff(clusters) >= 0).all()

    def test_two_equal_documents_are_two_clusters(self, tmp_path):
        dataset = corpus(tmp_path, make_documents(["a" * 7, "b" * 7]), 4)
        assert dataset.clusters[0] == "document"
        assert dataset.clusters[1].tolist() == [0, 0, 1, 1]


class TestSeparateDocuments:
    @settings(max_examples=40)
    @given(
        texts=texts, length=st.integers(1, 9), batch_size=st.integers(1, 5), tokenizer=st.sampled_from([BYTES, TEXT8])
    )
    def test_contexts_never_cross_documents(self, tmp_path_factory, texts, length, batch_size, tokenizer):
        """Every token is read once; only the last window of a document may be shorter; batches are of one length."""
        dataset = corpus(tmp_path_factory.mktemp("d"), make_documents(texts), length, "documents", tokenizer, shards=2)
        stream = corpus(tmp_path_factory.mktemp("s"), make_documents(texts), length, "stream", tokenizer)
        read = {}
        for indices, tokens in dataset.evaluation_batches(batch_size):
            assert len(indices) == len(tokens) <= batch_size
            assert not read.keys() & set(indices.tolist())
            read |= dict(zip(indices.tolist(), tokens.tolist(), strict=True))
        expected = [ids[at : at + length] for ids in documents_of(stream) for at in range(0, len(ids), length)]
        assert [read[index] for index in sorted(read)] == expected
        assert sorted(read) == list(range(dataset.examples))
        assert dataset.counts == stream.counts

    def test_longer_windows_come_first_in_few_batches(self, tmp_path):
        dataset = corpus(tmp_path, make_documents(["aaaaa", "b", "ccccc", "d", "e"]), 4, "documents")
        batches = [(indices.tolist(), tokens.shape[1]) for indices, tokens in dataset.evaluation_batches(8)]
        assert batches == [([0, 3], 4), ([1, 2, 4, 5, 6], 2)]
        assert dataset.clusters[1].tolist() == [0, 0, 1, 2, 2, 3, 4]
