"""Modes, transparency, orientation, pages and color profiles of images become plain pixels, or are refused."""

import io
from collections import Counter

import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL.ExifTags import Base

from mdpipe.data.sources import images
from mdpipe.data.sources.images import decode_image

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("mode", ["1", "P", "RGBA", "CMYK", "L", "RGB"])
@pytest.mark.parametrize("wanted", ["L", "RGB"])
def test_other_modes_are_converted_where_that_is_wanted(mode, wanted):
    image = Image.new("RGB", (3, 2), (255, 255, 255)).convert(mode)
    file = io.BytesIO()
    image.save(file, format="TIFF" if mode == "CMYK" else "PNG")
    pixels = decode_image(file.getvalue(), "it", Counter(), wanted)
    assert pixels.shape == (2, 3, 1 if wanted == "L" else 3)
    assert (pixels == 255).all()


def save_image(image, suffix="PNG", **settings):
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
    content = save_image(Image.fromarray(pixels, "RGBA"), suffix, **lossless.get(suffix, {}))
    counts = Counter()
    found = decode_image(content, "it", counts, "RGB")
    assert np.abs(found - shown).max() <= (8 if suffix == "AVIF" else 1)
    assert counts == {images.ON_WHITE: 1}


def test_transparency_of_gray_and_of_palettes_is_put_on_white():
    pixels, shown = hidden(ALPHA)
    palette, alphas = with_palette(pixels)
    gray = pixels[..., :1] * (ALPHA[..., None] / 255) + 255 - ALPHA[..., None]
    for content, expected in (
        (save_image(gray_with_alpha(pixels)), gray),
        (save_image(gray_with_alpha(pixels), "TIFF"), gray),
        (save_image(palette, transparency=alphas), shown),
        (save_image(Image.merge("PA", (palette, Image.fromarray(ALPHA))), "TIFF"), None),
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
    content = save_image(image, suffix, transparency=key)
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
    found = decode_image(save_image(image, **({"transparency": 255} if mode == "P" else {})), "it", counts, "RGB")
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
    found = decode_image(save_image(stored, suffix, exif=exif(orientation), **settings), "it", counts, "L")
    assert found.shape == (32, 48, 1)
    assert np.abs(found[..., 0].astype(int) - large).max() <= 6
    if suffix != "TIFF":  # Pillow turns it as it reads.
        assert counts == ({images.ROTATED: 1} if orientation > 1 else {})


@pytest.mark.parametrize("data", [b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\x7f", exif(9), exif(0)])
def test_broken_exif_data_turn_nothing(data):
    stored = Image.fromarray(UPRIGHT.repeat(8, axis=0).repeat(8, axis=1))
    counts = Counter()
    assert decode_image(save_image(stored, "JPEG", exif=data), "it", counts).shape == (16, 24, 1)
    assert not counts


@pytest.mark.parametrize(
    ("suffix", "settings"),
    [("GIF", {}), ("PNG", {}), ("PNG", {"default_image": True}), ("WEBP", {}), ("AVIF", {}), ("TIFF", {})],
)
@pytest.mark.parametrize("mode", [None, "RGB"])
def test_animations_and_pages_are_refused_with_their_number(suffix, settings, mode):
    frames = [Image.fromarray(RANDOM.integers(0, 256, (16, 16, 3), dtype=np.uint8)) for _ in range(3)]
    content = save_image(frames[0], suffix, save_all=True, append_images=frames[1:], **settings)
    with pytest.raises(ValueError, match=rf"it has 3 frames or pages \({suffix}\) where an image has one"):
        decode_image(content, "it", Counter(), mode)


def test_previews_and_smaller_copies_of_an_image_are_no_pages():
    image = Image.fromarray(RANDOM.integers(0, 256, (16, 16, 3), dtype=np.uint8))
    small = image.resize((8, 8))
    small.encoderinfo = {"tiffinfo": {254: 1}}
    overviews = save_image(image, "TIFF", save_all=True, append_images=[small])
    assert np.array_equal(decode_image(overviews, "it", Counter()), np.asarray(image))
    camera = save_image(image, "MPO", save_all=True, append_images=[image.resize((8, 8))])
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
    found = decode_image(save_image(Image.fromarray(pixels), icc_profile=content), "it", counts)
    assert np.array_equal(found, pixels)
    assert counts == ({images.PROFILED: 1} if counted else {})


def test_cmyk_images_are_converted_and_counted():
    image = Image.new("CMYK", (4, 4), (0, 255, 0, 0))
    counts = Counter()
    found = decode_image(save_image(image, "TIFF"), "it", counts, "RGB")
    assert found[0, 0].tolist() == [255, 0, 255]
    assert counts == {images.FROM_CMYK: 1}


def test_one_bit_becomes_black_and_white():
    image = Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1")
    for suffix in ("PNG", "TIFF", "BMP"):
        assert decode_image(save_image(image, suffix), "it", Counter(), "L").ravel().tolist() == [0, 255]
