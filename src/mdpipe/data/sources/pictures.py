"""Encoded pictures to pixels as a viewer shows them: 8 bits a channel, grey or RGB; perhaps cut to a square and shrunk.

Every source that opens picture files, and `mdpipe infill`, does it here, so that all treat them alike. A picture that
its EXIF data turn is turned. Where a source asks for a mode, transparent pictures are put on white. Several frames or
pages, and more than 8 bits a channel, are refused. Color profiles are not applied: values are taken as stored, which
is counted where the profile is not sRGB's.
"""

import io
import re
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFile, ImageOps, UnidentifiedImageError
from PIL.ExifTags import Base

from mdpipe.data.raw.writing import ONE_SIZE
from mdpipe.messages import reason

MODES = ("L", "RGB")
Mode = Literal["L", "RGB"]
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
"""Those that are opened: rasters that Pillow decodes without help. It recognizes a format by the content, whatever the
file's name, and for others it starts a program (Ghostscript for EPS) or calls a plugin. MPO counts as JPEG."""
CONVERTIBLE = ("1", "CMYK", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "YCbCr")
"""Pillow's modes of at most 8 bits a channel that it converts to grey and RGB."""
NOT_A_PAGE = 1 | 4
"""Bits of a TIFF page's NewSubfileType: a smaller copy of another page, or its transparency mask."""
NEW_SUBFILE_TYPE = 254
HEAD = 2**16
"""Bytes at a file's beginning in which JPEG 2000 and AVIF say how deep their channels are."""
PREFIX = 16
"""Bytes that Pillow tells a format by."""
TURNED = "pictures turned as their EXIF data say"
ON_WHITE = "transparent pictures put on white"
FROM_CMYK = "CMYK pictures converted without a color profile"
PROFILED = "pictures with another color profile than sRGB taken as stored"
MOST_PIXELS = 64 * 2**20
"""Of one picture, 8,192 x 8,192: a file of a few bytes can promise more pixels than there is memory."""
BATCH = 256
"""Pictures that travel together."""


@dataclass(frozen=True)
class Wanted:
    """What is made of a picture."""

    mode: Mode | None
    """Grey or RGB, whatever it was; None to refuse what is neither."""
    resize: int | None
    """The largest square in the middle, its edge brought to so many pixels by a box filter, as in the down-sampled
    ImageNet (Chrabaszcz et al. 2017); None for the picture as it is."""


def pixels_of(source: Path | bytes, where: str, wanted: Wanted, counts: Counter[str]) -> NDArray[np.uint8]:
    """(H, W, C), and in `counts` what was done to it that its values do not show.

    Raises:
        ValueError: it is truncated, no picture or in a format that is not opened, has too many pixels, several frames
            or more than 8 bits a channel, is smaller than asked for, or is neither grey nor RGB, or transparent, and
            not to be converted; the message begins with `where`.
        FileNotFoundError: there is no such file.
    """
    image = _converted(_loaded(source, where), where, wanted.mode, counts)
    pixels = np.asarray(image if wanted.resize is None else _squared(image, where, wanted.resize))
    return pixels[..., None] if pixels.ndim == 2 else pixels


class Alike:
    """Makes arrays of pictures that must all have the size and mode of the first."""

    def __init__(self, wanted: Wanted, counts: Counter[str]) -> None:
        self._wanted = wanted
        self._counts = counts
        self._first: tuple[str, NDArray[np.uint8]] | None = None

    def stacked(self, pictures: Iterable[tuple[str, Path | bytes]]) -> NDArray[np.uint8]:
        """Some pictures, which have names for messages, (n, H, W, C).

        Raises:
            ValueError: `pixels_of` refuses one, or it differs from the first.
        """
        return np.stack([self._like_the_first(name, source) for name, source in pictures])

    def _like_the_first(self, name: str, source: Path | bytes) -> NDArray[np.uint8]:
        pixels = pixels_of(source, name, self._wanted, self._counts)
        if self._first is None:
            self._first = name, pixels
        first_name, first = self._first
        if pixels.shape != first.shape:
            raise ValueError(f"{name} is {_described(pixels)} but {first_name} is {_described(first)}; {ONE_SIZE}")
        return pixels


def _described(pixels: NDArray[np.uint8]) -> str:
    height, width, channels = pixels.shape
    return f"{width} x {height} {'grey' if channels == 1 else 'RGB'}"


def _loaded(source: Path | bytes, where: str) -> Image.Image:
    """The only frame of a picture of 8 bits a channel, in the mode that it is stored in."""
    try:
        # Pillow warns of many pixels, which are refused here, and of broken EXIF data, which turn nothing.
        with (
            warnings.catch_warnings(action="ignore"),
            Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image,
        ):
            if image.width * image.height > MOST_PIXELS:
                raise Image.DecompressionBombError(f"{image.width:,} x {image.height:,}")
            frames, deep = _frames(image), image.mode in CONVERTIBLE and _is_deep(image, source)
            if frames == 1:
                image.load()
    except Image.DecompressionBombError as error:
        raise ValueError(f"{where} says that it has too many pixels ({error}); replace or remove it") from None
    except UnidentifiedImageError:
        raise ValueError(f"{where} {_unopened(source)}") from None
    except FileNotFoundError:
        raise
    except Exception as error:
        # Of a damaged file, Pillow's parsers let through whatever they run into.
        raise ValueError(f"{where} is truncated or no picture ({reason(error)}); replace or remove it") from None
    if frames > 1:
        raise ValueError(
            f"{where} has {frames} frames or pages ({image.format}) where a picture has one; save those that are meant"
            " as separate files, or remove it"
        )
    if deep or image.mode not in CONVERTIBLE:
        raise ValueError(
            f"{where} has the mode {image.mode}{';16' * deep}, which cannot be read without loss; scale its values to 0"
            " to 255 and save it as 8-bit grey (L) or RGB"
        )
    return image


def _converted(image: Image.Image, where: str, mode: Mode | None, counts: Counter[str]) -> Image.Image:
    """The picture upright and in the mode that is wanted; None for grey and RGB as they are."""
    if mode is None and image.mode not in MODES:
        raise ValueError(
            f"{where} has the mode {image.mode}, neither 8-bit grey (L) nor RGB; set the source's `mode` in params.yaml"
            " to L or RGB to have pictures converted (transparent ones are put on white), or convert it"
        )
    if _orientation(image) in range(2, 9):
        counts[TURNED] += 1
        image = ImageOps.exif_transpose(image)
    if _has_other_profile(image):
        counts[PROFILED] += 1
    opaque = _on_white(image)
    if opaque is not None:
        if mode is None:
            raise ValueError(
                f"{where} has transparent pixels; set the source's `mode` in params.yaml to L or RGB to have such"
                " pictures put on white, or save it without transparency"
            )
        counts[ON_WHITE] += 1
        image = opaque
    image.info.pop("transparency", None)  # Of no pixel, and Pillow would warn of what it loses.
    if image.mode == "CMYK":
        counts[FROM_CMYK] += 1
    return image if mode is None else image.convert(mode)


def _frames(image: Image.Image) -> int:
    """Frames of an animation, or pages; the previews in a JPEG of a camera are none."""
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
    """Whether the file has more than 8 bits a channel, which Pillow would cut to 8 without a word."""
    if image.format in ("AVIF", "JPEG2000"):
        return _states_depth(image.format, source)
    for tile in image.tile:
        match tile.codec_name, tile.args:
            case ("SGI16", _) | ("sgi_rle", (_, _, 2)) | ("bcn", (6, *_)):  # The last is BC6H, of half floats.
                return True
            case ("ppm" | "ppm_plain", (_, int(maximum))) if maximum > 255:
                return True
            case _, arguments if re.search(r"(?<!BGR);16", str(arguments)):  # BGR;16 has 16 bits a pixel.
                return True
    return False


def _states_depth(format: str, source: Path | bytes) -> bool:
    """Whether the header of a JPEG 2000 or AVIF file says that it has more than 8 bits a channel."""
    head = _head(source)
    if format == "AVIF":  # high_bitdepth in the third byte of the box av1C
        _, found, box = head.partition(b"av1C")
        return bool(found) and bool(box[2] & 0x40)
    # The markers SOC and SIZ, and 38 bytes later, for each component, its depth less 1 and two bytes more.
    _, found, sizes = head.partition(b"\xff\x4f\xff\x51")
    components = int.from_bytes(sizes[36:38])
    return bool(found) and any((depth & 0x7F) + 1 > 8 for depth in sizes[38 : 38 + 3 * components : 3])


def _orientation(image: Image.Image) -> int:
    """As EXIF numbers them: 1 for upright, also where there are no such data or they are broken."""
    try:
        with warnings.catch_warnings(action="ignore"):
            orientation = image.getexif().get(Base.Orientation, 1)
    except Exception:
        # Of damaged metadata, Pillow's parsers let through whatever they run into; the pixels are sound.
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
    """RGB of a picture with transparent pixels; None for one without, whatever its mode promises.

    Below a transparent pixel the file has a color that no viewer shows.
    """
    if not image.has_transparency_data:
        return None
    layers = image.convert("RGBA")
    if layers.getchannel("A").getextrema()[0] == 255:
        return None
    return Image.alpha_composite(Image.new("RGBA", layers.size, "white"), layers).convert("RGB")


def _unopened(source: Path | bytes) -> str:
    """What is wrong with a file of none of the formats, by how it begins; nothing of it is decoded to find out."""
    prefix, known = _head(source)[:PREFIX], ", ".join(FORMATS)
    for name in sorted(set(Image.ID) - set(FORMATS)):
        accepts = Image.OPEN[name][1]
        if accepts is not None and accepts(prefix) is True:
            return f"has the format {name}, which is not opened; convert it to one of {known}, or remove it"
    return f"is truncated or no picture in one of the formats {known}; replace or remove it"


def _head(source: Path | bytes) -> bytes:
    if isinstance(source, bytes):
        return source[:HEAD]
    with source.open("rb") as stream:
        return stream.read(HEAD)


def _squared(image: Image.Image, where: str, size: int) -> Image.Image:
    edge = min(image.size)
    if edge < size:
        raise ValueError(
            f"{where} is {image.width} x {image.height}, too small for `resize: {size}`; remove it, or ask for less"
        )
    left, top = (image.width - edge) // 2, (image.height - edge) // 2
    return image.resize((size, size), Image.Resampling.BOX, box=(left, top, left + edge, top + edge))
