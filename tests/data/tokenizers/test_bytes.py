"""The bytes of UTF-8."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mdpipe.data.tokenizers import Bytes

unicode_text = st.text(st.characters(exclude_categories=["Cs"]))


@given(text=st.lists(st.one_of(unicode_text, st.just("\0"))).map("".join))
def test_any_text_survives_encoding_and_decoding(text):
    ids = Bytes().encode(text)
    assert ids.tolist() == list(text.encode().replace(b"\0", b"\xc0\x80"))
    assert Bytes.eos_id not in ids
    assert Bytes().decode(ids) == text


@given(ids=st.lists(st.integers(0, 255)))
def test_any_ids_decode(ids):
    text = bytes(ids).replace(b"\xc0\x80", b"\0").decode(errors="replace")
    assert Bytes().decode(np.array(ids, dtype=np.uint16)) == text
