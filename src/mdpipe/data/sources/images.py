"""Image files decoded as a viewer shows them: 8 bits per channel, gray or RGB, optionally cropped and shrunk.

All sources of image files and `mdpipe infill` use this module, so they treat them alike. EXIF orientation is applied.
With a `mode`, transparent images are put on white. Several frames or pages, and more than 8 bits per channel, are
refused. Color profiles are not applied: values are taken as stored, and profiles other than sRGB are counted.
"""

import io
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFile, ImageOps, UnidentifiedImageError
from PIL.ExifTags import Base

from mdpipe.data.raw import IMAGES_PER_BATCH, ImageBatch
from mdpipe.data.sources.writer import ONE_SIZE
from mdpipe.messages import reason
from mdpipe.params.sources import DecodedImageSource, ImageMode

FORMATS = (
    "AVIF",
    "BMP",
    "DDS",
    "DIB",
    "GIF",
    "JPEG",
    "JPEG2000",
    "PCX",
    "PNG",
    "PPM",
    "QOI",
    "SGI",
    "TGA",
    "TIFF",
    "WEBP",
)
"""Raster formats that Pillow decodes itself; for others it starts a program (Ghostscript for EPS) or calls a plugin. It
recognizes a format by the content and not by the name. MPO counts as JPEG."""
CONVERTIBLE = ("1", "CMYK", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "YCbCr")
"""Pillow's modes of at most 8 bits per channel that it converts to gray and RGB."""
NOT_A_PAGE = 1 | 4
"""Bits of a TIFF page's NewSubfileType: a smaller copy of another page, or its transparency mask."""
NEW_SUBFILE_TYPE = 254
HEAD = 2**16
"""Bytes at the beginning of a file in which JPEG 2000 and AVIF store the depth of their channels."""
PREFIX = 16
"""Bytes by which Pillow recognizes a format."""
ROTATED = "pictures turned as their EXIF data say"
ON_WHITE = "transparent pictures put on white"
FROM_CMYK = "CMYK pictures converted without a color profile"
PROFILED = "pictures with another color profile than sRGB taken as stored"
MAX_PIXELS = 64 * 2**20
"""Of one image, 8,192 x 8,192: a file of a few bytes can promise more pixels than there is memory."""


def decode_batches(
    images: Iterator[tuple[str, Path | bytes, int | None]],
    source: DecodedImageSource,
    counts: Counter[str],
    class_names: tuple[str, ...] = (),
) -> Iterator[ImageBatch]:
    """Decode image files in batches. All must have the size and mode of the first.

    Args:
        images: the name of each image for messages, its file or content, and its class label or None.
        source: the settings `mode` and `resize`.
        counts: counts what was done to the images.
        class_names: names of the labels, if there are any.

    Raises:
        ValueError: `decode_image` refuses one, or it differs from the first.
    """
    first: tuple[str, NDArray[np.uint8]] | None = None
    while batch := list(islice(images, IMAGES_PER_BATCH)):
        decoded = []
        for name, content, _ in batch:
            pixels = decode_image(content, name, counts, source.mode, source.resize)
            first = first or (name, pixels)
            if pixels.shape != first[1].shape:
                raise ValueError(f"{name} is {_describe(pixels)} but {first[0]} is {_describe(first[1])}; {ONE_SIZE}")
            decoded.append(pixels)
        labels = [label for _, _, label in batch if label is not None]
        yield ImageBatch(
            np.stack(decoded), None, 255, np.array(labels, dtype=np.int64) if labels else None, class_names
        )


def decode_image(
    source: Path | bytes, where: str, counts: Counter[str], mode: ImageMode | None = None, resize: int | None = None
) -> NDArray[np.uint8]:
    """Decode one image: (H, W, C).

    Args:
        source: the file or its content.
        where: what messages call it.
        counts: counts what was done to it that its values do not show.
        mode: gray (L) or RGB, converted if necessary; None to refuse any other mode.
        resize: crop to the central square and shrink it to this edge with a box filter, as in the down-sampled ImageNet
            (Chrabaszcz et al. 2017); None for the image as it is.

    Raises:
        ValueError: it is truncated, not an image or in a format that is not opened, has too many pixels, several frames
            or more than 8 bits per channel, is smaller than `resize`, or is not gray or RGB, or transparent, and not
            to be converted; the message begins with `where`.
        FileNotFoundError: there is no such file.
    """
    image = _convert(_load(source, where), where, mode, counts)
    pixels = np.asarray(image if resize is None else _crop_and_shrink(image, where, resize))
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _describe(pixels: NDArray[np.uint8]) -> str:
    height, width, channels = pixels.shape
    return f"{width} x {height} {'gray' if channels == 1 else 'RGB'}"


def _load(source: Path | bytes, where: str) -> Image.Image:
    """Return the only frame of an image of 8 bits per channel, in the mode in which it is stored."""
    try:
        # Pillow warns of many pixels, which are refused here, and of broken EXIF data, which are ignored.
        with (
            warnings.catch_warnings(action="ignore"),
            Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image,
        ):
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError(f"{image.width:,} x {image.height:,}")
            frames, deep = _count_frames(image), image.mode in CONVERTIBLE and _is_deep(image, source)
            if frames == 1:
                image.load()
    except Image.DecompressionBombError as error:
        raise ValueError(f"{where} says that it has too many pixels ({error}); replace or remove it") from None
    except UnidentifiedImageError:
        raise ValueError(f"{where} {_why_unopened(source)}") from None
    except FileNotFoundError:
        raise
    except Exception as error:
        # On damaged files, Pillow's parsers pass on whatever is raised below.
        raise ValueError(f"{where} is truncated or no image ({reason(error)}); replace or remove it") from None
    if frames > 1:
        raise ValueError(
            f"{where} has {frames} frames or pages ({image.format}) where an image has one; save those that are meant"
            " as separate files, or remove it"
        )
    if deep or image.mode not in CONVERTIBLE:
        raise ValueError(
            f"{where} has the mode {image.mode}{';16' * deep}, which cannot be read without loss; scale its values to 0"
            " to 255 and save it as 8-bit gray (L) or RGB"
        )
    return image


def _convert(image: Image.Image, where: str, mode: ImageMode | None, counts: Counter[str]) -> Image.Image:
    """Return the image upright and in `mode`; None keeps gray and RGB as they are."""
    if mode is None and image.mode not in ("L", "RGB"):
        raise ValueError(
            f"{where} has the mode {image.mode}, neither 8-bit gray (L) nor RGB; set the source's `mode` in params.yaml"
            " to L or RGB to have images converted (transparent ones are put on white), or convert it"
        )
    if _orientation(image) in range(2, 9):
        counts[ROTATED] += 1
        image = ImageOps.exif_transpose(image)
    if _has_other_profile(image):
        counts[PROFILED] += 1
    opaque = _on_white(image)
    if opaque is not None:
        if mode is None:
            raise ValueError(
                f"{where} has transparent pixels; set the source's `mode` in params.yaml to L or RGB to have such"
                " images put on white, or save it without transparency"
            )
        counts[ON_WHITE] += 1
        image = opaque
    image.info.pop("transparency", None)  # Of no pixel, and Pillow would warn of what it loses.
    if image.mode == "CMYK":
        counts[FROM_CMYK] += 1
    return image if mode is None else image.convert(mode)


def _count_frames(image: Image.Image) -> int:
    """Count frames of an animation, or pages; the previews in a JPEG of a camera do not count."""
    count: int = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    if image.format != "TIFF" or count == 1:
        return count
    pages = 0
    for number in range(count):
        image.seek(number)
        pages += not image.tag_v2.get(NEW_SUBFILE_TYPE, 0) & NOT_A_PAGE  # type: ignore[attr-defined]
    image.seek(0)
    return max(pages, 1)


def _is_deep(image: ImageFile.ImageFile, source: Path | bytes) -> bool:
    """Return True if the file has more than 8 bits per channel, which Pillow would cut to 8 silently."""
    if image.format in ("AVIF", "JPEG2000"):
        return _is_deep_by_header(image.format, source)
    for tile in image.tile:
        match tile.codec_name, tile.args:
            case ("SGI16", _) | ("sgi_rle", (_, _, 2)) | ("bcn", (6, *_)):  # The last is BC6H, of half floats.
                return True
            case ("ppm" | "ppm_plain", (_, int(maximum))) if maximum > 255:
                return True
            case _, arguments if re.search(r"(?<!BGR);16", str(arguments)):  # BGR;16 has 16 bits a pixel.
                return True
    return False


def _is_deep_by_header(format: str, source: Path | bytes) -> bool:
    """Return True if the header of a JPEG 2000 or AVIF file states more than 8 bits per channel."""
    head = _head(source)
    if format == "AVIF":  # high_bitdepth in the third byte of the box av1C
        _, found, box = head.partition(b"av1C")
        return bool(found) and bool(box[2] & 0x40)
    # The markers SOC and SIZ, and 38 bytes later, for each component, its depth less 1 and two bytes more.
    _, found, sizes = head.partition(b"\xff\x4f\xff\x51")
    components = int.from_bytes(sizes[36:38])
    return bool(found) and any((depth & 0x7F) + 1 > 8 for depth in sizes[38 : 38 + 3 * components : 3])


def _orientation(image: Image.Image) -> int:
    """Return the orientation as EXIF numbers it: 1 for upright, also if there is none or it is broken."""
    try:
        with warnings.catch_warnings(action="ignore"):
            orientation = image.getexif().get(Base.Orientation, 1)
    except Exception:
        # On damaged metadata, Pillow's parsers pass on whatever is raised below; the pixels are sound.
        return 1
    return orientation if isinstance(orientation, int) else 1


def _has_other_profile(image: Image.Image) -> bool:
    profile = image.info.get("icc_profile")
    if not profile:
        return False
    try:
        return "sRGB" not in ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile)))
    except (OSError, ImageCms.PyCMSError):
        return True


def _on_white(image: Image.Image) -> Image.Image | None:
    """Return RGB of an image with transparent pixels; None for one without, whatever its mode promises.

    Below a transparent pixel the file has a color that no viewer shows.
    """
    if not image.has_transparency_data:
        return None
    layers = image.convert("RGBA")
    if layers.getchannel("A").getextrema()[0] == 255:
        return None
    return Image.alpha_composite(Image.new("RGBA", layers.size, "white"), layers).convert("RGB")


def _why_unopened(source: Path | bytes) -> str:
    """Explain why a file is not opened by how it begins, without decoding it."""
    prefix, known = _head(source)[:PREFIX], ", ".join(FORMATS)
    for name in sorted(set(Image.ID) - set(FORMATS)):
        accepts = Image.OPEN[name][1]
        if accepts is not None and accepts(prefix) is True:
            return f"has the format {name}, which is not opened; convert it to one of {known}, or remove it"
    return f"is truncated or no image in one of the formats {known}; replace or remove it"


def _head(source: Path | bytes) -> bytes:
    if isinstance(source, bytes):
        return source[:HEAD]
    with source.open("rb") as stream:
        return stream.read(HEAD)


def _crop_and_shrink(image: Image.Image, where: str, size: int) -> Image.Image:
    edge = min(image.size)
    if edge < size:
        raise ValueError(
            f"{where} is {image.width} x {image.height}, too small for `resize: {size}`; remove it, or choose a"
            " smaller size"
        )
    left, top = (image.width - edge) // 2, (image.height - edge) // 2
    return image.resize((size, size), Image.Resampling.BOX, box=(left, top, left + edge, top + edge))
