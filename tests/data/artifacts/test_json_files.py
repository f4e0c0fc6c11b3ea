"""JSON with stable bytes."""

import pytest

from mdpipe.data.artifacts.files import read_json, write_json


def test_the_order_of_keys_does_not_change_the_bytes(tmp_path):
    write_json(tmp_path / "a", {"x": 1, "é": [1, 2]})
    write_json(tmp_path / "b", {"é": [1, 2], "x": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert read_json(tmp_path / "a", "") == {"x": 1, "é": [1, 2]}


@pytest.mark.parametrize("content", [None, b"", b'{"a": ', b"[1]", b"\xff"])
def test_a_damaged_file_is_named_with_a_hint(tmp_path, content):
    if content is not None:
        (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.json .*; run it again"):
        read_json(tmp_path / "x.json", "run it again")
