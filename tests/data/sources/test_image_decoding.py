"""Image files to pixels, from whichever source they come."""

import io
import os
import struct
import subprocess
import zlib
from collections import Counter

import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL.ExifTags import Base

from mdpipe.data.raw import ImageBatch
from mdpipe.data.sources import images
from mdpipe.data.sources.images import decode_image

RANDOM = np.random.default_rng(0)


def encoded(pixels, suffix="PNG"):
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
    content = encoded(expected, suffix)
    (tmp_path / "a").write_bytes(content)
    for source in (content, tmp_path / "a"):
        assert np.array_equal(decode_image(source, "it", Counter()), expected.reshape(5, 4, -1))


@pytest.mark.parametrize("mode", ["1", "P", "PA", "LA", "RGBA", "CMYK"])
@pytest.mark.parametrize("resize", [None, 2])
def test_other_modes_are_refused_with_a_hint(mode, resize):
    suffix = "PNG" if mode in ("1", "P", "LA", "RGBA") else "TIFF"
    content = encoded(Image.new(mode, (4, 4)), suffix)
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
    content = bytearray(encoded(Image.new("RGB", (8, 8)), "AVIF"))
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
    "L PNG": encoded(np.full((2, 2), 4096, np.uint16)),
    "RGB PPM": b"P6 1 1 65535 " + b"\x12\x34" * 3,
    "RGB plain PPM": b"P3 1 1 1023 1000 20 3 ",
    "RGB JPEG 2000": wide_jpeg_2000("RGB", "jp2"),
    "RGB JPEG 2000 codestream": wide_jpeg_2000("RGB", "j2k"),
    "AVIF": wide_avif(),
    "SGI": wide_sgi(0),
    "F TIFF": encoded(np.full((2, 2), 0.5, np.float32), "TIFF"),
    "I TIFF": encoded(np.full((2, 2), 70_000, np.int32), "TIFF"),
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
    content = encoded(RANDOM.integers(0, 256, (64, 64, 3), dtype=np.uint8), suffix)
    kept = int(kept * len(content)) if isinstance(kept, float) else kept
    with pytest.raises(ValueError, match=r"^it is truncated or no image .*; replace or remove it"):
        decode_image(content[:kept], "it", Counter())


@pytest.mark.parametrize("suffix", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "DDS", "PPM"])
def test_any_damage_to_an_image_ends_in_pixels_or_a_value_error(suffix):
    content = encoded(RANDOM.integers(0, 256, (24, 24, 3), dtype=np.uint8), suffix)
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
    assert decode_image(encoded(np.zeros((5, 4), np.uint8)), "it", Counter()).shape == (5, 4, 1)
    with pytest.raises(ValueError, match="too many pixels"):
        decode_image(encoded(np.zeros((7, 3), np.uint8)), "it", Counter())


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
    found = decode_image(encoded(image if channels == 3 else image[..., 0]), "it", Counter(), resize=size)
    assert found.shape == (size, size, channels)
    # Half a level for each of the two passes, along rows and along columns.
    assert np.abs(found - means).max() <= (0 if edge == size else 1)


def test_an_image_that_is_too_small_is_named_with_its_size():
    with pytest.raises(
        ValueError, match=r"^it is 9 x 4, too small for `resize: 5`; remove it, or choose a smaller size"
    ):
        decode_image(encoded(np.zeros((4, 9), np.uint8)), "it", Counter(), resize=5)


def test_equal_images_share_a_split():
    images = RANDOM.integers(0, 256, (3, 4, 4, 1), dtype=np.uint8)
    keys = ImageBatch(images[[0, 1, 0, 2]], None, 255).keys()
    assert keys[0] == keys[2]
    assert len(set(keys)) == 3


@pytest.mark.parametrize("mode", ["1", "P", "RGBA", "CMYK", "L", "RGB"])
@pytest.mark.parametrize("wanted", ["L", "RGB"])
def test_other_modes_are_converted_where_that_is_wanted(mode, wanted):
    image = Image.new("RGB", (3, 2), (255, 255, 255)).convert(mode)
    file = io.BytesIO()
    image.save(file, format="TIFF" if mode == "CMYK" else "PNG")
    pixels = decode_image(file.getvalue(), "it", Counter(), wanted)
    assert pixels.shape == (2, 3, 1 if wanted == "L" else 3)
    assert (pixels == 255).all()


def saved(image, suffix="PNG", **settings):
    file = io.BytesIO()
    image.save(file, suffix, **settings)
    return file.getvalue()


def hidden(alpha):
    """Random colors under this alpha (H, W), and what a viewer shows of them on white."""
    colors = RANDOM.integers(0, 256, (*alpha.shape, 3), dtype=np.uint8)
    weight = alpha[..., None] / 255
    return np.dstack([colors, alpha]), colors * weight + 255 * (1 - weight)


ALPHA = np.array([[0, 0, 255], [128, 1, 254], [0, 255, 60]], np.uint8)


def gray_with_alpha(pixels):
    return Image.fromarray(np.dstack([pixels[..., 0], pixels[..., 3]]), "LA")


def with_palette(pixels):
    """A palette with the color and the alpha of each pixel."""
    image = Image.fromarray(np.arange(9, dtype=np.uint8).reshape(3, 3)).convert("P")
    image.putpalette(pixels[..., :3].reshape(-1).tolist())
    return image, bytes(pixels[..., 3].reshape(-1).tolist())


@pytest.mark.parametrize("suffix", ["PNG", "WEBP", "TIFF", "AVIF", "TGA", "DDS", "JPEG2000", "QOI"])
def test_transparent_pixels_are_put_on_white(suffix):
    pixels, shown = hidden(ALPHA)
    lossless = {"WEBP": {"lossless": True, "exact": True}, "AVIF": {"quality": 100, "subsampling": "4:4:4"}}
    content = saved(Image.fromarray(pixels, "RGBA"), suffix, **lossless.get(suffix, {}))
    counts = Counter()
    found = decode_image(content, "it", counts, "RGB")
    assert np.abs(found - shown).max() <= (8 if suffix == "AVIF" else 1)
    assert counts == {images.ON_WHITE: 1}


def test_transparency_of_gray_and_of_palettes_is_put_on_white():
    pixels, shown = hidden(ALPHA)
    palette, alphas = with_palette(pixels)
    gray = pixels[..., :1] * (ALPHA[..., None] / 255) + 255 - ALPHA[..., None]
    for content, expected in (
        (saved(gray_with_alpha(pixels)), gray),
        (saved(gray_with_alpha(pixels), "TIFF"), gray),
        (saved(palette, transparency=alphas), shown),
        (saved(Image.merge("PA", (palette, Image.fromarray(ALPHA))), "TIFF"), None),
    ):
        counts = Counter()
        found = decode_image(content, "it", counts, "RGB")
        assert counts == {images.ON_WHITE: 1}
        if expected is not None:
            assert np.abs(found.astype(float) - expected).max() <= 1


@pytest.mark.parametrize("suffix", ["PNG", "GIF"])
@pytest.mark.parametrize(("mode", "key"), [("L", 7), ("RGB", (7, 7, 7)), ("P", 7), ("1", 0)])
def test_a_transparent_color_is_put_on_white_or_refused(mode, key, suffix):
    image = Image.new("L", (2, 1), 7)
    image.putpixel((1, 0), 200)
    if mode == "P":
        image = image.copy()
        image.putpalette([level for number in range(256) for level in [number] * 3])
    elif mode == "1":
        image = image.point(lambda level: 255 * (level > 100)).convert("1")
    else:
        image = image.convert(mode)
    if suffix == "GIF" and mode == "RGB":
        pytest.skip("GIF has palettes")
    content = saved(image, suffix, transparency=key)
    counts = Counter()
    levels = decode_image(content, "it", counts, "L").ravel().tolist()
    assert levels == [255, 255 if mode == "1" else 200]
    assert counts == {images.ON_WHITE: 1}
    with pytest.raises(ValueError, match="transparent"):
        decode_image(content, "it", Counter())


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_an_opaque_image_keeps_its_values_in_any_mode(mode):
    pixels = RANDOM.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).convert("L").convert("LA") if mode == "LA" else Image.fromarray(pixels)
    image = image.quantize(16) if mode == "P" else image.convert(mode)
    counts = Counter()
    found = decode_image(saved(image, **({"transparency": 255} if mode == "P" else {})), "it", counts, "RGB")
    assert np.array_equal(found, np.asarray(image.convert("RGB")))
    assert not counts


def exif(orientation):
    data = Image.Exif()
    data[Base.Orientation] = orientation
    return data.tobytes()


UPRIGHT = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
AS_STORED = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.T,
    6: lambda image: np.rot90(image, 1),
    7: lambda image: image[::-1, ::-1].T,
    8: lambda image: np.rot90(image, -1),
}
"""How an upright image is stored under each orientation of EXIF."""


@pytest.mark.parametrize("orientation", AS_STORED)
@pytest.mark.parametrize("suffix", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_an_image_is_turned_as_its_exif_data_say(orientation, suffix):
    """A camera's left upper corner is the viewer's, in all eight orientations."""
    large = UPRIGHT.repeat(16, axis=0).repeat(16, axis=1)  # Blocks survive lossy formats.
    stored = Image.fromarray(np.ascontiguousarray(AS_STORED[orientation](large))).convert("RGB")
    settings = {"lossless": True} if suffix == "WEBP" else {} if suffix in ("PNG", "TIFF") else {"quality": 95}
    counts = Counter()
    found = decode_image(saved(stored, suffix, exif=exif(orientation), **settings), "it", counts, "L")
    assert found.shape == (32, 48, 1)
    assert np.abs(found[..., 0].astype(int) - large).max() <= 6
    if suffix != "TIFF":  # Pillow turns it as it reads.
        assert counts == ({images.ROTATED: 1} if orientation > 1 else {})


@pytest.mark.parametrize("data", [b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\x7f", exif(9), exif(0)])
def test_broken_exif_data_turn_nothing(data):
    stored = Image.fromarray(UPRIGHT.repeat(8, axis=0).repeat(8, axis=1))
    counts = Counter()
    assert decode_image(saved(stored, "JPEG", exif=data), "it", counts).shape == (16, 24, 1)
    assert not counts


@pytest.mark.parametrize(
    ("suffix", "settings"),
    [("GIF", {}), ("PNG", {}), ("PNG", {"default_image": True}), ("WEBP", {}), ("AVIF", {}), ("TIFF", {})],
)
@pytest.mark.parametrize("mode", [None, "RGB"])
def test_animations_and_pages_are_refused_with_their_number(suffix, settings, mode):
    frames = [Image.fromarray(RANDOM.integers(0, 256, (16, 16, 3), dtype=np.uint8)) for _ in range(3)]
    content = saved(frames[0], suffix, save_all=True, append_images=frames[1:], **settings)
    with pytest.raises(ValueError, match=rf"it has 3 frames or pages \({suffix}\) where an image has one"):
        decode_image(content, "it", Counter(), mode)


def test_previews_and_smaller_copies_of_an_image_are_no_pages():
    image = Image.fromarray(RANDOM.integers(0, 256, (16, 16, 3), dtype=np.uint8))
    small = image.resize((8, 8))
    small.encoderinfo = {"tiffinfo": {254: 1}}
    overviews = saved(image, "TIFF", save_all=True, append_images=[small])
    assert np.array_equal(decode_image(overviews, "it", Counter()), np.asarray(image))
    camera = saved(image, "MPO", save_all=True, append_images=[image.resize((8, 8))])
    assert Image.open(io.BytesIO(camera)).n_frames == 2
    assert decode_image(camera, "it", Counter()).shape == (16, 16, 3)


def profile(name):
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(name)).tobytes()


@pytest.mark.parametrize(
    ("content", "counted"),
    [(profile("sRGB"), {}), (profile("XYZ"), 1), (b"nonsense", 1)],
    ids=["sRGB", "XYZ", "broken"],
)
def test_color_profiles_are_not_applied_but_counted(content, counted):
    pixels = RANDOM.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    counts = Counter()
    found = decode_image(saved(Image.fromarray(pixels), icc_profile=content), "it", counts)
    assert np.array_equal(found, pixels)
    assert counts == ({images.PROFILED: 1} if counted else {})


def test_cmyk_images_are_converted_and_counted():
    image = Image.new("CMYK", (4, 4), (0, 255, 0, 0))
    counts = Counter()
    found = decode_image(saved(image, "TIFF"), "it", counts, "RGB")
    assert found[0, 0].tolist() == [255, 0, 255]
    assert counts == {images.FROM_CMYK: 1}


def test_one_bit_becomes_black_and_white():
    image = Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1")
    for suffix in ("PNG", "TIFF", "BMP"):
        assert decode_image(saved(image, suffix), "it", Counter(), "L").ravel().tolist() == [0, 255]


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

    def recorded(name):
        def refuse(*_):
            opened.append(name)
            raise SyntaxError(name)

        return refuse

    monkeypatch.setattr(Image, "OPEN", {name: (recorded(name), None) for name in Image.OPEN})
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
