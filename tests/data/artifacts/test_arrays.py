"""Arrays in .npy files."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdpipe.data.artifacts.arrays import ArrayFile, open_array


@given(parts=st.lists(st.integers(0, 5), max_size=6), width=st.integers(1, 3))
def test_an_array_written_in_parts_has_numpys_bytes(tmp_path_factory, parts, width):
    path = tmp_path_factory.mktemp("parts") / "grown.npy"
    whole = np.arange(sum(parts) * width, dtype=np.uint16).reshape(-1, width)
    with ArrayFile(path, np.uint16, (width,)) as file:
        for part in np.split(whole, np.cumsum(parts)[:-1]) if parts else []:
            file.append(part)
        assert file.rows == len(whole)
    saved = io.BytesIO()
    np.save(saved, whole)
    assert path.read_bytes() == saved.getvalue()


def test_an_array_comes_back_memory_mapped(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(6).reshape(2, 3))
    array = open_array(tmp_path / "a.npy", "hint")
    assert isinstance(array, np.memmap)
    assert array.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_rows_of_another_shape_are_refused(tmp_path):
    with ArrayFile(tmp_path / "a.npy", np.uint8, (2,)) as file, pytest.raises(ValueError, match="do not fit"):
        file.append(np.zeros((1, 3), np.uint8))


def _damaged(path, how):
    np.save(path, np.arange(100))
    content = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "pickled":
        np.save(path, np.array([{}, []], dtype=object), allow_pickle=True)
    elif how == "an archive":
        np.savez(path.with_suffix(".npz"), a=np.arange(3))
        path.with_suffix(".npz").rename(path)
    else:
        path.write_bytes(
            {
                "empty": b"",
                "cut in the header": content[:50],
                "cut in the data": content[:-1],
                "too long": content + b"x",
                "text": b"hello",
            }[how]
        )


@pytest.mark.parametrize(
    "how", ["missing", "empty", "cut in the header", "cut in the data", "too long", "text", "pickled", "an archive"]
)
def test_a_damaged_file_is_named_with_a_hint(tmp_path, how):
    path = tmp_path / "tokens.npy"
    _damaged(path, how)
    with pytest.raises(ValueError, match=r"tokens\.npy .*; run it again"):
        open_array(path, "run it again")
