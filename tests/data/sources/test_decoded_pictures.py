"""Picture files to pixels, from whichever source they come."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from mdpipe.data.raw.material import Pictures
from mdpipe.data.sources import pictures
from mdpipe.data.sources.pictures import Wanted, pixels_of

RANDOM = np.random.default_rng(0)

AS_IT_IS = Wanted(mode=None, resize=None)


def encoded(pixels, suffix="PNG"):
    stream = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(stream, suffix)
    return stream.getvalue()


def rgb_png(width, height, bits, content):
    """An RGB picture of the lines `content`, which need not be as many as it says."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(content)),
        (b"IEND", b""),
    ]
    packed = (struct.pack(">I", len(content)) + name + content for name, content in chunks)
    sums = (struct.pack(">I", zlib.crc32(name + content)) for name, content in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk + checksum for chunk, checksum in zip(packed, sums, strict=True))


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 3)])
@pytest.mark.parametrize("suffix", ["PNG", "BMP", "TIFF", "PPM"])
def test_pixels_come_as_they_are_from_bytes_and_from_files(tmp_path, shape, suffix):
    expected = RANDOM.integers(0, 256, shape, dtype=np.uint8)
    content = encoded(expected, suffix)
    (tmp_path / "a").write_bytes(content)
    for source in (content, tmp_path / "a"):
        assert np.array_equal(pixels_of(source, "it", AS_IT_IS), expected.reshape(5, 4, -1))


@pytest.mark.parametrize("mode", ["1", "P", "PA", "LA", "RGBA", "I;16", "I", "F", "CMYK"])
@pytest.mark.parametrize("resize", [None, 2])
def test_other_modes_are_refused_with_the_cure(mode, resize):
    suffix = "PNG" if mode in ("1", "P", "LA", "RGBA", "I;16") else "TIFF"
    content = encoded(Image.new(mode, (4, 4)), suffix)
    with pytest.raises(ValueError, match=rf"it has the mode {mode}, neither 8-bit grey \(L\) nor RGB; convert it"):
        pixels_of(content, "it", Wanted(None, resize))


def test_sixteen_bits_a_channel_are_refused_and_not_cut_to_eight():
    line = b"\0" + bytes(range(24))
    assert pixels_of(rgb_png(4, 1, 8, line[:13]), "it", AS_IT_IS).tolist() == [np.arange(12).reshape(4, 3).tolist()]
    with pytest.raises(ValueError, match=r"it has the mode RGB;16, neither 8-bit grey .*; convert it"):
        pixels_of(rgb_png(4, 1, 16, line), "it", AS_IT_IS)


@pytest.mark.parametrize("suffix", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize("kept", [0, 1, 20, 0.5])
def test_a_truncated_picture_is_named(suffix, kept):
    content = encoded(RANDOM.integers(0, 256, (64, 64, 3), dtype=np.uint8), suffix)
    kept = int(kept * len(content)) if isinstance(kept, float) else kept
    with pytest.raises(ValueError, match=r"^it is truncated or no picture .*; replace or remove it"):
        pixels_of(content[:kept], "it", AS_IT_IS)


@pytest.mark.parametrize("suffix", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "DDS", "PPM"])
def test_whatever_is_damaged_of_a_picture_ends_in_pixels_or_in_one_kind_of_error(suffix):
    content = encoded(RANDOM.integers(0, 256, (24, 24, 3), dtype=np.uint8), suffix)
    named = 0
    for _ in range(100):
        damaged = bytearray(content)
        for place in RANDOM.integers(0, min(len(content), 150), 3):
            damaged[place] = RANDOM.integers(0, 256)
        try:
            pixels_of(bytes(damaged), "it", AS_IT_IS)
        except ValueError as error:
            assert str(error).startswith("it ")
            named += 1
    assert named > 0


@pytest.mark.parametrize(("width", "height"), [(100_000, 100_000), (10_000, 8_000), (2**31 - 1, 1)])
def test_a_picture_that_promises_too_many_pixels_is_refused_before_it_is_unpacked(width, height):
    with pytest.raises(ValueError, match=r"^it says that it has too many pixels .*; replace or remove it"):
        pixels_of(rgb_png(width, height, 8, bytes(100)), "it", Wanted(None, 8))


def test_a_picture_of_as_many_pixels_as_may_be_is_taken(monkeypatch):
    monkeypatch.setattr(pictures, "MOST_PIXELS", 20)
    assert pixels_of(encoded(np.zeros((5, 4), np.uint8)), "it", AS_IT_IS).shape == (5, 4, 1)
    with pytest.raises(ValueError, match="too many pixels"):
        pixels_of(encoded(np.zeros((7, 3), np.uint8)), "it", AS_IT_IS)


@pytest.mark.parametrize(
    ("height", "width", "size"), [(24, 24, 4), (24, 40, 4), (35, 20, 5), (25, 40, 5), (30, 30, 30)]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_resizing_cuts_the_middle_and_averages_blocks(height, width, size, channels):
    image = RANDOM.integers(0, 256, (height, width, channels), dtype=np.uint8)
    edge = min(height, width)
    top, left = (height - edge) // 2, (width - edge) // 2
    middle = image[top : top + edge, left : left + edge].astype(float)
    means = middle.reshape(size, edge // size, size, edge // size, channels).mean(axis=(1, 3))
    found = pixels_of(encoded(image if channels == 3 else image[..., 0]), "it", Wanted(None, size))
    assert found.shape == (size, size, channels)
    # Half a level for each of the two passes, along rows and along columns.
    assert np.abs(found - means).max() <= (0 if edge == size else 1)


def test_a_picture_that_is_too_small_is_named_with_its_size():
    with pytest.raises(ValueError, match=r"^it is 9 x 4, too small for `resize: 5`; remove it, or ask for less"):
        pixels_of(encoded(np.zeros((4, 9), np.uint8)), "it", Wanted(None, 5))


def test_equal_pictures_share_a_split():
    images = RANDOM.integers(0, 256, (3, 4, 4, 1), dtype=np.uint8)
    keys = Pictures(images[[0, 1, 0, 2]], None, 255).keys()
    assert keys[0] == keys[2]
    assert len(set(keys)) == 3


@pytest.mark.parametrize("mode", ["1", "P", "RGBA", "CMYK", "L", "RGB"])
@pytest.mark.parametrize("wanted", ["L", "RGB"])
def test_other_modes_are_converted_where_that_is_wanted(mode, wanted):
    image = Image.new("RGB", (3, 2), (255, 255, 255)).convert(mode)
    file = io.BytesIO()
    image.save(file, format="TIFF" if mode == "CMYK" else "PNG")
    pixels = pixels_of(file.getvalue(), "it", Wanted(wanted, None))
    assert pixels.shape == (2, 3, 1 if wanted == "L" else 3)
    assert (pixels == 255).all()


def test_more_than_eight_bits_are_clipped_for_nobody():
    file = io.BytesIO()
    Image.fromarray(np.full((2, 2), 4096, np.uint16)).save(file, format="PNG")
    with pytest.raises(ValueError, match="not for 16 bits a channel"):
        pixels_of(file.getvalue(), "it", Wanted("RGB", None))
