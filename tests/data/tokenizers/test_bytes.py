"""The bytes of UTF-8."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mdpipe.data.tokenizers.bytes import Bytes


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_survives_encoding_and_decoding(text):
    ids = Bytes().encode(text)
    assert ids.tolist() == list(text.encode())
    assert Bytes().decode(ids) == text


@given(ids=st.lists(st.integers(0, 255)))
def test_any_ids_decode(ids):
    assert Bytes().decode(np.array(ids, dtype=np.uint16)) == bytes(ids).decode(errors="replace")
