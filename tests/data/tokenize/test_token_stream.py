"""The stream of a split: what it was encoded from at once does not show in it."""

import json
from contextlib import ExitStack
from itertools import pairwise

import numpy as np
import pytest
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers, trainers

from mdpipe.data.raw import Document
from mdpipe.data.tokenize import token_stream
from mdpipe.data.tokenize.token_stream import TokenStream, decode_between
from mdpipe.data.tokenizers.hf_tokenizer import HFTokenizer
from mdpipe.params.data import PACKINGS
from tests.data.builders import document_ids, make_tokenizer
from tests.data.shards import in_parts, make_documents

TEXT8, BYTES = make_tokenizer("text8"), make_tokenizer("bytes")
any_text = st.text(st.sampled_from("abZ1 .\n\u00e9\u6f22\U0001f600\u00a0")) | st.text(
    st.characters(exclude_categories=["Cs"])
)
piece_sizes = st.integers(2, 12)
reuse_the_subwords = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def write_stream(directory, documents, tokenizer, convention):
    """Return the tokens of a file, and the stream that wrote it."""
    with ExitStack() as files:
        stream = TokenStream(directory / "tokens.npy", tokenizer, PACKINGS[convention], files)
        for document in documents:
            stream.append(document)
    return np.load(directory / "tokens.npy").astype(np.int64), stream


def written_in_parts(directory, documents, tokenizer, convention, size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_stream, "MAX_ENCODED_CHARS", size)
        return write_stream(directory, documents, tokenizer, convention)


@pytest.mark.parametrize("tokenizer", [TEXT8, BYTES], ids=lambda tokenizer: tokenizer.kind)
@given(text=any_text, size=piece_sizes)
def test_a_long_text_has_the_tokens_that_it_has_as_a_whole(tmp_path_factory, tokenizer, text, size):
    found, _ = written_in_parts(tmp_path_factory.mktemp("t"), [Document("a", text)], tokenizer, "text8", size)
    whole = tokenizer.encode(text)
    assert found.tolist() == (np.trim_zeros(whole, "b") if tokenizer.eos_separates_words else whole).tolist()


@pytest.mark.parametrize("tokenizer", [TEXT8, BYTES], ids=lambda tokenizer: tokenizer.kind)
@given(text=any_text, size=piece_sizes, data=st.data())
def test_a_text_in_parts_has_the_tokens_of_the_whole(tmp_path_factory, tokenizer, text, size, data):
    """Wherever it is cut; and then the end of text, unless nothing is left of it."""
    cuts = data.draw(st.lists(st.integers(1, max(len(text) - 1, 1)), unique=True, max_size=4))
    parts = in_parts(text, [cut for cut in cuts if cut < len(text)])
    found, stream = written_in_parts(tmp_path_factory.mktemp("t"), parts, tokenizer, "stream", size)
    whole = document_ids(tokenizer, text)
    if len(whole) or tokenizer.is_lossless:
        whole = np.concatenate([whole, [tokenizer.eos_id]])
    assert found.tolist() == whole.tolist()
    assert stream.counts["tokens"] == len(found)


@given(texts=st.lists(any_text, max_size=5), size=piece_sizes)
def test_without_eos_words_of_neighbors_are_a_space_apart(tmp_path_factory, texts, size):
    found, _ = written_in_parts(tmp_path_factory.mktemp("t"), make_documents(texts), TEXT8, "text8", size)
    kept = [text for text in texts if TEXT8.encode(text).any()]
    assert TEXT8.decode(found) == TEXT8.decode(TEXT8.encode("\n".join(kept))).rstrip()


@reuse_the_subwords
@given(text=any_text, size=piece_sizes)
def test_parts_of_a_long_text_decode_to_it(tmp_path_factory, subwords, text, size):
    found, _ = written_in_parts(tmp_path_factory.mktemp("t"), [Document("a", text)], subwords, "stream", size)
    assert subwords.decode(found) == text
    assert found.tolist().count(subwords.eos_id) == 1


@pytest.fixture(scope="module")
def byte_pairs(articles):
    """Byte pairs as GPT-2 has them, learned from a few articles."""
    model = tokenizers.Tokenizer(models.BPE())
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, special_tokens=["<|end|>"])
    model.train_from_iterator(articles, trainer)
    return HFTokenizer(json.loads(model.to_str()), "<|end|>")


@pytest.mark.parametrize("size", [200, 1001])
def test_byte_pairs_are_those_of_the_whole_text(tmp_path, byte_pairs, articles, size):
    text = "\n\n  ".join(articles)
    found, _ = written_in_parts(tmp_path, [Document("a", text)], byte_pairs, "text8", size)
    assert len(text) > 30 * size
    assert found.tolist() == byte_pairs.encode(text).tolist()


@pytest.mark.parametrize("kind", ["text8", "bytes", "sentencepiece"])
def test_counts_are_those_of_the_documents(tmp_path, texts, subwords, kind):
    tokenizer = subwords if kind == "sentencepiece" else make_tokenizer(kind)
    found, stream = write_stream(tmp_path, make_documents(texts), tokenizer, "stream")
    lengths = [len(document_ids(tokenizer, text)) + 1 for text in texts]
    kept = [text if tokenizer.is_lossless else tokenizer.decode(document_ids(tokenizer, text)) + " " for text in texts]
    assert stream.counts == {
        "documents": len(texts),
        "tokens": sum(lengths),
        "bytes": sum(len(text.encode()) for text in kept),
        "characters": sum(map(len, kept)),
        "words": sum(len(text.split()) for text in kept),
        "unk_tokens": 0,
        "longest_document": max(lengths),
    }
    bins = [sum(2**k <= length < 2 ** (k + 1) for length in lengths) for k in range(token_stream.LENGTH_BINS)]
    assert stream.lengths.tolist() == bins
    assert stream.unigram.tolist() == np.bincount(found, minlength=tokenizer.vocab_size).tolist()
    assert len(stream.digests) == 32 * len(texts)


def test_a_document_of_which_nothing_is_left_leaves_nothing(tmp_path):
    found, stream = write_stream(tmp_path, make_documents(["one", "\u6f22\u5b57", "", "two"]), TEXT8, "stream")
    assert TEXT8.decode(found) == "one two "
    assert stream.counts["documents"] == 2


def test_unknown_tokens_are_counted(tmp_path, subwords, monkeypatch):
    monkeypatch.setattr(type(subwords), "unk_id", int(subwords.encode("the")[0]))
    _, stream = write_stream(tmp_path, make_documents(["the the", "the"]), subwords, "stream")
    assert stream.counts["unk_tokens"] == sum(
        (subwords.encode(text) == subwords.unk_id).sum() for text in ("the the", "the")
    )
    assert stream.counts["unk_tokens"] > 0


@reuse_the_subwords
@pytest.mark.parametrize("kind", ["bytes", "sentencepiece", "json"])
@given(text=st.text(st.sampled_from("ab \u00e9\u6f22\U0001f600"), max_size=30), data=st.data())
def test_neighboring_spans_decode_to_the_whole_text(subwords, byte_pairs, kind, text, data):
    """Each for the characters that end in it, even where a cut goes through one."""
    tokenizer = {"bytes": BYTES, "sentencepiece": subwords, "json": byte_pairs}[kind]
    tokens = tokenizer.encode(text)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(tokens)), max_size=4)))
    positions = [0, *cuts, len(tokens)]
    stretches = [decode_between(tokenizer, tokens, *ends) for ends in pairwise(positions)]
    assert "".join(stretches) == text


def test_ends_of_text_decode_to_nothing():
    tokens = np.array([97, 0, 0xC3, 0xA9, 0, 98])
    assert [decode_between(BYTES, tokens, first, first + 3) for first in range(4)] == [
        "a",
        "\u00e9",
        "\u00e9",
        "\u00e9b",
    ]
