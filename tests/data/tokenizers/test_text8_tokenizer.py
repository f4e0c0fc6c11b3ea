"""The alphabet of text8."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdpipe.data.tokenizers import Text8

TEXT8 = Text8()


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


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_becomes_words_with_single_spaces(text):
    assert re.fullmatch(" ?([a-z]+( [a-z]+)*)? ?", normalized(text))


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_normalizing_again_changes_nothing(text):
    assert normalized(normalized(text)) == normalized(text)


@given(ids=st.lists(st.integers(0, 26)))
def test_decoding_gives_one_character_per_id(ids):
    assert TEXT8.decode(np.array(ids, dtype=np.int64)) == "".join(" abcdefghijklmnopqrstuvwxyz"[id] for id in ids)


def test_the_end_of_text_token_is_a_space():
    assert TEXT8.decode(np.array([TEXT8.eos_id])) == " "
