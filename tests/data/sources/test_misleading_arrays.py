"""Arrays with wrong sizes in their headers are refused before memory is allocated for them."""

import io
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from tests.data.sources.source_contents import images_of

pytestmark = pytest.mark.slow

SHAPES = [
    (2**40, 8, 8),
    (2**62, 2**62, 1),
    (-1, 8, 8),
    (2, -8, -8),
    (2**63, 8, 8),
    (2**64, 0, 8),
    (3, 8, 8),
    (1, 8, 8),
    (True, 8, 8),
    ("a", 8, 8),
    (2.0, 8, 8),
    (2**31,) * 3,
    (2**40, 64),
]
CONTENT = bytes(2 * 8 * 8)


def npy(shape, descr="|u1"):
    header = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + CONTENT


def error_of(kind, path, **settings):
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=path.name) as error:
            images_of(kind, path, **settings)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20e6
    assert str(error.value).isprintable()
    return str(error.value)


def test_an_honest_header_is_read(tmp_path):
    (tmp_path / "a.npy").write_bytes(npy((2, 8, 8)))
    assert images_of("npy", tmp_path / "a.npy").images.shape == (2, 8, 8, 1)


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_shape_that_is_not_the_content_is_refused(tmp_path, shape):
    (tmp_path / "a.npy").write_bytes(npy(shape))
    assert (
        "header" in (message := error_of("npy", tmp_path / "a.npy"))
        or "is empty, truncated or not a .npy file" in message
    )
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(tmp_path / "a.npz", "w", method) as archive:
            archive.writestr("x.npy", npy(shape))
            archive.writestr("y.npy", npy((2, 64)))
        for kind in ("npy", "npz_flat"):
            settings = {"field": "x"} | ({"shape": (1, 8, 8)} if kind == "npz_flat" else {})
            assert "header" in error_of(kind, tmp_path / "a.npz", **settings)
    labels = {"field": "x", "first": 0, "num_classes": 10}
    settings = {"field": "y", "shape": (1, 8, 8), "labels": labels}
    assert "header" in error_of("npz_flat", tmp_path / "a.npz", **settings)


@pytest.mark.parametrize("kind", ["npy", "npz_flat"])
def test_a_bomb_and_an_array_that_is_there_twice_are_refused(tmp_path, kind):
    settings = {"field": "x"} | ({"shape": (1, 1024, 1024)} if kind == "npz_flat" else {})
    shape = (220, 1024 * 1024) if kind == "npz_flat" else (220, 1024, 1024)
    with (
        zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("x.npy", "w") as member,
    ):
        member.write(npy(shape)[: -len(CONTENT)])
        for _ in range(shape[0]):
            member.write(bytes(2**20))
    assert "a decompression bomb; save it again" in error_of(kind, tmp_path / "a.npz", **settings)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for _ in range(2):
            archive.writestr("x.npy", npy((2, 64)))
    assert "a.npz has 2 arrays 'x'; keep or rename all but one" in error_of(kind, tmp_path / "a.npz", **settings)


@pytest.mark.parametrize("kind", ["npy", "npz_flat"])
def test_two_concatenated_archives_are_refused(tmp_path, kind):
    stream = io.BytesIO()
    np.savez(stream, x=np.zeros((2, 64), np.uint8))
    (tmp_path / "a.npz").write_bytes(2 * stream.getvalue())
    settings = {"field": "x"} | ({"shape": (1, 8, 8)} if kind == "npz_flat" else {})
    assert "a.npz is two concatenated archives" in error_of(kind, tmp_path / "a.npz", **settings)


def test_an_array_in_fortran_order_is_read(tmp_path):
    images = np.asfortranarray(np.arange(2 * 8 * 8, dtype=np.uint8).reshape(2, 8, 8))
    stream = io.BytesIO()
    np.savez(stream, x=images)
    (tmp_path / "a.npz").write_bytes(stream.getvalue())
    assert np.array_equal(images_of("npy", tmp_path / "a.npz").images[..., 0], images)
