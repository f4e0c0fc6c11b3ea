"""The alphabet of text8."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdpipe.data.tokenizers.letters import Letters

LETTERS = Letters()


def normalised(text):
    return LETTERS.decode(LETTERS.encode(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, World!", "hello world"),
        ("in 1984", "in one nine eight four"),
        ("a0b", "a zero b"),
        ("  two\n\nlines\t", "two lines"),
        ("na\u00efve caf\u00e9", "na ve caf"),
        ("\u212a", ""),  # the sign of the kelvin, whose lower case is k but not in ASCII
        ("", ""),
    ],
)
def test_text_is_normalised_as_in_text8(text, expected):
    assert normalised(text) == expected


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_becomes_words_with_single_spaces(text):
    assert re.fullmatch("([a-z]+( [a-z]+)*)?", normalised(text))


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_normalising_again_changes_nothing(text):
    assert normalised(normalised(text)) == normalised(text)


@given(ids=st.lists(st.integers(0, 26)))
def test_decoding_gives_one_letter_an_id(ids):
    assert LETTERS.decode(np.array(ids, dtype=np.int64)) == "".join(" abcdefghijklmnopqrstuvwxyz"[id] for id in ids)


def test_the_separator_is_a_space():
    assert LETTERS.decode(np.array(LETTERS.separator)) == " "
