"""SentencePiece: any text survives, and equal text makes equal models."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdpipe.data.tokenizers import SentencePiece
from tests.data.builders import make_tokenizer

SPECIAL = ["<s>", "</s>", "<unk>", "<0x41>", "<0xE2>", "\u2581", "\u2585", " \u2047 ", "\0", "\r\n", "\n", "\t", "  "]
unicode_text = st.text(st.characters(exclude_categories=["Cs"]))
parts_of_text = st.one_of(unicode_text, st.sampled_from([*SPECIAL, "the", "model", "\ufeff", "\ue000", "e\u0301"]))


@settings(max_examples=300)
@given(text=st.lists(parts_of_text).map("".join))
def test_any_text_survives_encoding_and_decoding(subwords, text):
    ids = subwords.encode(text)
    assert subwords.decode(ids) == text
    assert not {0, subwords.eos_id} & set(ids.tolist())  # neither the unknown nor the end of text


@pytest.mark.parametrize("text", SPECIAL)
def test_special_strings_are_plain_text(articles, text):
    """Also where the model was fitted to them."""
    fitted = make_tokenizer("sentencepiece", [*articles, *[f"{text} word{text}word\n"] * 50], vocab_size=400)
    for written in (text, f"a{text}b", text * 3):
        assert fitted.decode(fitted.encode(written)) == written


@given(ids=st.lists(st.integers(0, 499)))
def test_any_ids_decode_to_text(subwords, ids):
    subwords.decode(np.array(ids, dtype=np.uint16)).encode()


def test_the_separator_decodes_to_nothing(subwords):
    assert subwords.decode(np.array([*subwords.encode("one"), subwords.eos_id, *subwords.encode("two")])) == "onetwo"


def test_common_text_takes_far_fewer_tokens_than_characters(subwords):
    text = "the statement is executed when the value of the expression is true\n"
    assert len(subwords.encode(text)) < len(text) / 2


def test_equal_text_makes_equal_bytes_in_any_directory(articles, tmp_path, monkeypatch):
    saved = []
    for folder in ("here", "elsewhere"):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        make_tokenizer("sentencepiece", iter(articles), vocab_size=400).save(tmp_path / folder)
        saved.append({file.name: file.read_bytes() for file in (tmp_path / folder).iterdir()})
    assert saved[0] == saved[1]
    assert set(saved[0]) == {"tokenizer.json", "sentencepiece.model"}
    assert os.fsencode(tmp_path) not in b"".join(saved[0].values())


def test_long_documents_count_as_a_whole(articles):
    """SentencePiece itself skips sentences of more than 4,192 bytes."""
    fitted = make_tokenizer("sentencepiece", ["needle " * 5000, *articles], vocab_size=400)
    assert len(fitted.encode(" needle needle needle")) == 3


def test_too_large_a_vocabulary_is_refused_with_the_limit(texts):
    with pytest.raises(
        ValueError, match=r"tokenizer\.vocab_size = 5000 is too large .* supports (\d+) tokens"
    ) as refusal:
        make_tokenizer("sentencepiece", texts, vocab_size=5000)
    limit = int(str(refusal.value).split("supports ")[1].split()[0])
    assert make_tokenizer("sentencepiece", texts, vocab_size=limit).vocab_size == limit


def test_too_small_a_vocabulary_is_refused_with_the_limit():
    greek = ["".join(map(chr, range(0x391, 0x3CA)))] * 10
    with pytest.raises(ValueError, match=r"tokenizer\.vocab_size = 300 is too small .* to (\d+) or more"):
        make_tokenizer("sentencepiece", greek, vocab_size=300)


@pytest.mark.parametrize("documents", [[], [""], ["\n" * 99], ["\0" * 99], ["\u2581"]])
@pytest.mark.parametrize("model", ["unigram", "bpe"])
def test_documents_without_text_are_refused(documents, model):
    with pytest.raises(ValueError, match=r"training text has nothing but .*; give more text \(tokenizer\.max_train_c"):
        make_tokenizer("sentencepiece", documents, vocab_size=300, model_type=model)


@pytest.mark.parametrize("document", [" " * 5000, "\t \n" * 900, "a", "ab " * 400, "漢" * 500, "x" * 100_000])
@pytest.mark.parametrize("model", ["unigram", "bpe"])
def test_too_little_text_is_refused_with_the_limit(document, model):
    with pytest.raises(ValueError, match=r"supports 2\d\d tokens at most; lower it .*, or give more text \(t"):
        make_tokenizer("sentencepiece", [document], vocab_size=300, model_type=model)


@pytest.mark.parametrize("content", [None, b"", b"no model"])
def test_a_damaged_model_is_named_with_a_hint(subwords, tmp_path, content):
    subwords.save(tmp_path)
    (tmp_path / "sentencepiece.model").unlink()
    if content is not None:
        (tmp_path / "sentencepiece.model").write_bytes(content)
    with pytest.raises(ValueError, match=r"sentencepiece\.model .*; run it again"):
        SentencePiece.load(tmp_path, "run it again")


def test_line_ends_are_learned_rather_than_spelled_in_bytes(subwords):
    """SentencePiece drops a newline at the end of what it learns from. The bytes are the ids up to 257."""
    assert min(subwords.encode("the end\n\n    of it\n")) > 257
