"""Image files to pixels, from whichever source they come."""

import io
import os
import struct
import subprocess
import zlib
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from mdpipe.data.raw import ImageBatch
from mdpipe.data.sources import images
from mdpipe.data.sources.images import decode_image

RANDOM = np.random.default_rng(0)


def encode_image(pixels, suffix="PNG"):
    stream = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(stream, suffix)
    return stream.getvalue()


def rgb_png(width, height, bits, content):
    """An RGB image of the lines `content`, which need not be as many as it says."""
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
    content = encode_image(expected, suffix)
    (tmp_path / "a").write_bytes(content)
    for source in (content, tmp_path / "a"):
        assert np.array_equal(decode_image(source, "it", Counter()), expected.reshape(5, 4, -1))


@pytest.mark.parametrize("mode", ["1", "P", "PA", "LA", "RGBA", "CMYK"])
@pytest.mark.parametrize("resize", [None, 2])
def test_other_modes_are_refused_with_a_hint(mode, resize):
    suffix = "PNG" if mode in ("1", "P", "LA", "RGBA") else "TIFF"
    content = encode_image(Image.new(mode, (4, 4)), suffix)
    with pytest.raises(ValueError, match=rf"it has the mode {mode}, neither 8-bit gray \(L\) nor RGB; set .*`mode`"):
        decode_image(content, "it", Counter(), resize=resize)


def wide_png(color_type, channels):
    """One pixel of 16 bits a channel."""
    header = struct.pack(">IIBBBBB", 1, 1, 16, color_type, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" + b"\x12\x34" * channels)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )


def wide_jpeg_2000(mode, suffix):
    """A file of 8 bits a channel whose header is changed to say 16."""
    file = io.BytesIO()
    Image.new(mode, (8, 8)).save(file, "JPEG2000", no_jp2=suffix == "j2k")
    content, channels = bytearray(file.getvalue()), len(mode)
    sizes = content.index(b"\xff\x4f\xff\x51") + 42
    assert content[sizes : sizes + 3 * channels : 3] == bytes([7]) * channels
    content[sizes : sizes + 3 * channels : 3] = bytes([15]) * channels
    return bytes(content)


def wide_avif():
    """A file of 8 bits a channel whose header is changed to say 10."""
    content = bytearray(encode_image(Image.new("RGB", (8, 8)), "AVIF"))
    content[content.index(b"av1C") + 6] |= 0x40
    depths = content.index(b"pixi") + 9
    content[depths : depths + 3] = bytes([10]) * 3
    return bytes(content)


def wide_sgi(compressed):
    """Two pixels of gray, 16 bits each."""
    header = struct.pack(">HBBHHHH", 474, compressed, 2, 1, 2, 1, 1)
    return header.ljust(512, b"\0") + b"\x12\x34\x56\x78"


DEEP = {
    "RGB PNG": wide_png(2, 3),
    "RGBA PNG": wide_png(6, 4),
    "LA PNG": wide_png(4, 2),
    "L PNG": encode_image(np.full((2, 2), 4096, np.uint16)),
    "RGB PPM": b"P6 1 1 65535 " + b"\x12\x34" * 3,
    "RGB plain PPM": b"P3 1 1 1023 1000 20 3 ",
    "RGB JPEG 2000": wide_jpeg_2000("RGB", "jp2"),
    "RGB JPEG 2000 codestream": wide_jpeg_2000("RGB", "j2k"),
    "AVIF": wide_avif(),
    "SGI": wide_sgi(0),
    "F TIFF": encode_image(np.full((2, 2), 0.5, np.float32), "TIFF"),
    "I TIFF": encode_image(np.full((2, 2), 70_000, np.int32), "TIFF"),
}


@pytest.mark.parametrize("content", DEEP.values(), ids=DEEP)
@pytest.mark.parametrize("mode", [None, "L", "RGB"])
def test_more_than_eight_bits_a_channel_are_refused_and_not_cut(tmp_path, content, mode):
    (tmp_path / "it").write_bytes(content)
    for source in (content, tmp_path / "it"):
        with pytest.raises(ValueError, match=r"^it has the mode .*, which cannot be read without loss; scale"):
            decode_image(source, "it", Counter(), mode)


def test_eight_bits_a_channel_are_not_taken_for_more():
    line = b"\0" + bytes(range(12))
    assert decode_image(rgb_png(4, 1, 8, line), "it", Counter()).tolist() == [np.arange(12).reshape(4, 3).tolist()]
    pixels = RANDOM.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    for suffix, settings in (("JPEG2000", {}), ("AVIF", {"quality": 100}), ("SGI", {})):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, suffix, **settings)
        assert decode_image(file.getvalue(), "it", Counter()).shape == (16, 16, 3)
    assert decode_image(b"P6 1 1 15 \x0f\x00\x01", "it", Counter()).tolist() == [[[255, 0, 17]]]


@pytest.mark.parametrize("suffix", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize("kept", [0, 1, 20, 0.5])
def test_a_truncated_image_is_named(suffix, kept):
    content = encode_image(RANDOM.integers(0, 256, (64, 64, 3), dtype=np.uint8), suffix)
    kept = int(kept * len(content)) if isinstance(kept, float) else kept
    with pytest.raises(ValueError, match=r"^it is truncated or no image .*; replace or remove it"):
        decode_image(content[:kept], "it", Counter())


@pytest.mark.parametrize("suffix", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "DDS", "PPM"])
def test_any_damage_to_an_image_ends_in_pixels_or_a_value_error(suffix):
    content = encode_image(RANDOM.integers(0, 256, (24, 24, 3), dtype=np.uint8), suffix)
    named = 0
    for _ in range(100):
        damaged = bytearray(content)
        for position in RANDOM.integers(0, min(len(content), 150), 3):
            damaged[position] = RANDOM.integers(0, 256)
        try:
            decode_image(bytes(damaged), "it", Counter())
        except ValueError as error:
            assert str(error).startswith("it ")
            named += 1
    assert named > 0


@pytest.mark.parametrize(("width", "height"), [(100_000, 100_000), (10_000, 8_000), (2**31 - 1, 1)])
def test_too_many_promised_pixels_are_refused_before_decoding(width, height):
    with pytest.raises(ValueError, match=r"^it says that it has too many pixels .*; replace or remove it"):
        decode_image(rgb_png(width, height, 8, bytes(100)), "it", Counter(), resize=8)


def test_an_image_of_as_many_pixels_as_may_be_is_taken(monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 20)
    assert decode_image(encode_image(np.zeros((5, 4), np.uint8)), "it", Counter()).shape == (5, 4, 1)
    with pytest.raises(ValueError, match="too many pixels"):
        decode_image(encode_image(np.zeros((7, 3), np.uint8)), "it", Counter())


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
    found = decode_image(encode_image(image if channels == 3 else image[..., 0]), "it", Counter(), resize=size)
    assert found.shape == (size, size, channels)
    # Half a level for each of the two passes, along rows and along columns.
    assert np.abs(found - means).max() <= (0 if edge == size else 1)


def test_an_image_that_is_too_small_is_named_with_its_size():
    with pytest.raises(
        ValueError, match=r"^it is 9 x 4, too small for `resize: 5`; remove it, or choose a smaller size"
    ):
        decode_image(encode_image(np.zeros((4, 9), np.uint8)), "it", Counter(), resize=5)


def test_equal_images_share_a_split():
    images = RANDOM.integers(0, 256, (3, 4, 4, 1), dtype=np.uint8)
    keys = ImageBatch(images[[0, 1, 0, 2]], None, 255).keys()
    assert keys[0] == keys[2]
    assert len(set(keys)) == 3


def postscript():
    return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\nshowpage\n%%EOF\n"


def test_postscript_is_refused_and_ghostscript_is_not_started(tmp_path, monkeypatch):
    """Pillow would recognize it under any name."""
    started = []
    monkeypatch.setattr(subprocess, "Popen", lambda *arguments, **_: started.append(arguments))
    monkeypatch.setattr(os, "system", started.append)
    (tmp_path / "a.png").write_bytes(postscript())
    for source in (postscript(), tmp_path / "a.png"):
        with pytest.raises(
            ValueError, match=r"^a\.png has the format EPS, which is not opened; convert it to one of AVIF"
        ):
            decode_image(source, "a.png", Counter(), "L")
    assert not started


def test_only_formats_that_pillow_decodes_itself_are_opened(monkeypatch):
    """Those that run a program or a plugin are never handed a file, whatever it begins with."""
    Image.init()
    opened = []

    def record(name):
        def refuse(*_):
            opened.append(name)
            raise SyntaxError(name)

        return refuse

    monkeypatch.setattr(Image, "OPEN", {name: (record(name), None) for name in Image.OPEN})
    with pytest.raises(ValueError, match="no image"):
        decode_image(postscript(), "it", Counter(), "L")
    assert set(opened) == set(images.FORMATS)
    helped = {"EPS", "BUFR", "GRIB", "HDF5", "WMF", "MPEG", "PSD", "FITS", "IPTC"}
    assert helped <= set(Image.ID)
    assert not helped & set(images.FORMATS)


def test_a_format_that_a_plugin_adds_is_refused_by_name(monkeypatch):
    Image.init()
    monkeypatch.setattr(Image, "ID", [*Image.ID, "PLUGIN"])
    monkeypatch.setitem(
        Image.OPEN, "PLUGIN", (lambda *_: pytest.fail("opened"), lambda head: head == b"plugin's content")
    )
    with pytest.raises(ValueError, match="it has the format PLUGIN, which is not opened"):
        decode_image(b"plugin's content and more", "it", Counter())
