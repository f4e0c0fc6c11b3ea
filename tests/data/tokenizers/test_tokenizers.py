"""What all tokenizers have in common, and the two that learn no vocabulary."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdpipe.data.tokenizers import Bytes, Text8, load_tokenizer
from tests.data.builders import make_tokenizer

TEXT8 = Text8()
unicode_text = st.text(st.characters(exclude_categories=["Cs"]))

KINDS = [("text8", {}), ("bytes", {}), ("sentencepiece", {"vocab_size": 400})]


@pytest.mark.parametrize(("kind", "settings"), KINDS)
def test_a_saved_tokenizer_comes_back(articles, tmp_path, kind, settings):
    tokenizer = make_tokenizer(kind, articles, **settings)
    tokenizer.save(tmp_path)
    back = load_tokenizer(tmp_path)
    assert (back.kind, back.vocab_size, back.eos_id, back.is_lossless) == (
        tokenizer.kind,
        tokenizer.vocab_size,
        tokenizer.eos_id,
        tokenizer.is_lossless,
    )
    text = "The model, 12\nnaïve"
    assert back.encode(text).tolist() == tokenizer.encode(text).tolist()
    assert 0 <= back.eos_id < back.vocab_size


@pytest.mark.parametrize(("kind", "settings"), KINDS)
def test_an_empty_text_has_no_ids_and_no_ids_an_empty_text(articles, kind, settings):
    tokenizer = make_tokenizer(kind, articles, **settings)
    assert tokenizer.encode("").shape == (0,)
    assert tokenizer.decode(tokenizer.encode("")) == ""


@pytest.mark.parametrize("content", [None, "", "{}", '{"kind": "words"}', '{"kind": "letters", "vocabulary": 27}'])
def test_a_damaged_tokenizer_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ValueError, match=r"tokenizer\.json .*; run the stage that wrote"):
        load_tokenizer(tmp_path)


def normalized(text):
    return TEXT8.decode(TEXT8.encode(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, World!", "hello world "),
        ("in 1984", "in one nine eight four "),
        ("a0b", "a zero b"),
        ("  two\n\nlines\t", " two lines "),
        ("na\u00efve caf\u00e9", "na ve caf "),
        ("\u212a", " "),  # the sign of the kelvin, whose lower case is k but not in ASCII
        ("", ""),
    ],
)
def test_text_is_normalized_as_in_text8(text, expected):
    assert normalized(text) == expected


@given(text=unicode_text)
def test_any_text_becomes_words_with_single_spaces(text):
    assert re.fullmatch(" ?([a-z]+( [a-z]+)*)? ?", normalized(text))


@given(text=unicode_text)
def test_normalizing_again_changes_nothing(text):
    assert normalized(normalized(text)) == normalized(text)


@given(ids=st.lists(st.integers(0, 26)))
def test_decoding_gives_one_character_per_id(ids):
    assert TEXT8.decode(np.array(ids, dtype=np.int64)) == "".join(" abcdefghijklmnopqrstuvwxyz"[id] for id in ids)


def test_the_end_of_text_token_is_a_space():
    assert TEXT8.decode(np.array([TEXT8.eos_id])) == " "


@given(text=st.lists(st.one_of(unicode_text, st.just("\0"))).map("".join))
def test_bytes_of_any_text_survive(text):
    ids = Bytes().encode(text)
    assert ids.tolist() == list(text.encode().replace(b"\0", b"\xc0\x80"))
    assert Bytes.eos_id not in ids
    assert Bytes().decode(ids) == text


@given(ids=st.lists(st.integers(0, 255)))
def test_any_bytes_decode(ids):
    text = bytes(ids).replace(b"\xc0\x80", b"\0").decode(errors="replace")
    assert Bytes().decode(np.array(ids, dtype=np.uint16)) == text
