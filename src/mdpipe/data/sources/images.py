"""Image files in folders and in .tar archives, which are read without unpacking them.

Images are decoded as a viewer shows them: 8 bits per channel, gray or RGB, optionally cropped and shrunk. All
image sources and `mdpipe infill` decode here. EXIF orientation is applied. With a `mode`, transparent images are put on
white. Several frames or pages, and more than 8 bits per channel, are refused. Color profiles are not applied: values
are taken as stored, and profiles other than sRGB are counted.
"""

import hashlib
import io
import re
import tarfile
import warnings
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFile, ImageOps, UnidentifiedImageError
from PIL.ExifTags import Base

from mdpipe.data.raw import IMAGES_PER_BATCH, ImageBatch
from mdpipe.data.sources.files import check_files, find_classes, group_files, open_decompressed
from mdpipe.data.sources.writer import MAX_LISTED, ONE_SIZE, BrokenImagesError, SourceShard
from mdpipe.messages import printable, reason
from mdpipe.params.sources import DecodedImageSource, ImageFolderSource, ImageMode, ImageTarSource

# fmt: off
FORMATS = (
    "AVIF", "BMP", "DDS", "DIB", "GIF", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "QOI", "SGI", "TGA", "TIFF", "WEBP",
)
# fmt: on
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
ROTATED = "images rotated as their EXIF data say"
ON_WHITE = "transparent images put on white"
FROM_CMYK = "CMYK images converted without a color profile"
PROFILED = "images with another color profile than sRGB taken as stored"
MAX_PIXELS = 64 * 2**20
"""Limit of one image, 8,192 x 8,192: a file of a few bytes can promise more pixels than there is memory."""

MAX_BYTES = 4 * MAX_PIXELS
"""Limit of one image file: a header of a few bytes can promise more than there is memory."""


def decode_batches(
    images: Iterator[tuple[str, Path | bytes, int | None]],
    source: DecodedImageSource,
    counts: Counter[str],
    class_names: tuple[str, ...] = (),
) -> Iterator[ImageBatch]:
    """Decode image files in batches. All must have the size and mode of the first.

    Args:
        images: The name of each image for messages, its file or content, and its class label or None.
        source: The settings `mode` and `resize`.
        counts: Counts what was done to the images.
        class_names: Names of the labels, if there are any.

    Raises:
        BrokenImagesError: Some cannot be decoded or differ from the first; all images have been looked at.
    """
    first: tuple[str, NDArray[np.uint8]] | None = None
    problems, broken = list[str](), 0
    while batch := list(islice(images, IMAGES_PER_BATCH)):
        decoded = []
        for name, content, _ in batch:
            try:
                pixels = decode_image(content, name, counts, source.mode, source.resize)
                first = first or (name, pixels)
                if pixels.shape != first[1].shape:
                    raise ValueError(
                        f"{name} is {_describe(pixels)} but {first[0]} is {_describe(first[1])}; {ONE_SIZE}"
                    )
                decoded.append(pixels)
            except ValueError as error:
                broken += 1
                problems += [str(error)] * (broken <= MAX_LISTED)
        if not broken:
            labels = [label for _, _, label in batch if label is not None]
            yield ImageBatch(
                np.stack(decoded), None, 255, np.array(labels, dtype=np.int64) if labels else None, class_names
            )
    if broken:
        raise BrokenImagesError(problems, broken)


def decode_image(
    source: Path | bytes, where: str, counts: Counter[str], mode: ImageMode | None = None, resize: int | None = None
) -> NDArray[np.uint8]:
    """Decode one image: (H, W, C).

    Args:
        source: The file or its content.
        where: Name of the image in messages.
        counts: Counts what was done to it that its values do not show.
        mode: Gray (L) or RGB, converted if necessary; None to refuse any other mode.
        resize: Crop to the central square and shrink it to this edge with a box filter, as in the down-sampled ImageNet
            (Chrabaszcz et al. 2017); None for the image as it is.

    Raises:
        ValueError: It is truncated, not an image or in a format that is not opened, has too many pixels, several frames
            or more than 8 bits per channel, is smaller than `resize`, or is not gray or RGB, or transparent, and not
            to be converted; the message begins with `where`.
        FileNotFoundError: There is no such file.
    """
    image = _convert(_load(source, where), where, mode, counts)
    pixels = np.asarray(image if resize is None else _crop_and_shrink(image, where, resize))
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _describe(pixels: NDArray[np.uint8]) -> str:
    height, width, channels = pixels.shape
    return f"{width} x {height} {'gray' if channels == 1 else 'RGB'}"


def _load(source: Path | bytes, where: str) -> Image.Image:
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
    image.info.pop("transparency", None)  # It describes no pixel, and Pillow would warn of what it loses.
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
        return _is_deep_by_header(image.format, _head(source))
    for tile in image.tile:
        match tile.codec_name, tile.args:
            case ("SGI16", _) | ("sgi_rle", (_, _, 2)) | ("bcn", (6, *_)):  # The last is BC6H, of half floats.
                return True
            case ("ppm" | "ppm_plain", (_, int(maximum))) if maximum > 255:
                return True
            case _, arguments if re.search(r"(?<!BGR);16", str(arguments)):  # BGR;16 has 16 bits per pixel.
                return True
    return False


def _is_deep_by_header(format: str, head: bytes) -> bool:
    if format == "AVIF":  # high_bitdepth in the third byte of the box av1C
        _, found, box = head.partition(b"av1C")
        return bool(found) and bool(box[2] & 0x40)
    # The markers SOC and SIZ, and 38 bytes later, for each component, its depth less 1 and two bytes more.
    _, found, sizes = head.partition(b"\xff\x4f\xff\x51")
    components = int.from_bytes(sizes[36:38])
    return bool(found) and any((depth & 0x7F) + 1 > 8 for depth in sizes[38 : 38 + 3 * components : 3])


def _orientation(image: Image.Image) -> int:
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
    """Return RGB of an image with transparent pixels; None for one without, whatever its mode promises."""
    layers = image.convert("RGBA") if image.has_transparency_data else None
    if layers is None or layers.getchannel("A").getextrema()[0] == 255:
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
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as stream:
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


def open_image_files(source: ImageFolderSource | ImageTarSource) -> list[SourceShard]:
    """Return groups of files in the order of their names, or archives."""
    if isinstance(source, ImageTarSource):
        files = check_files(source)
        return [SourceShard(file.split, file.size, partial(_read_archive, source, file.path)) for file in files]
    (class_of, classes), shards = find_classes(source), []
    number_of = {name: number for number, name in enumerate(classes)}
    for group, size in group_files([*class_of]):
        images = [(file.path, number_of.get(class_of[file] or "")) for file in group]
        shards.append(SourceShard(group[0].split, size, partial(_read_files, source, images, classes)))
    return shards


def _read_files(
    source: ImageFolderSource, files: Sequence[tuple[Path, int | None]], classes: tuple[str, ...], counts: Counter[str]
) -> Iterator[ImageBatch]:
    counts["files"] += len(files)
    return decode_batches(((str(path), path, label) for path, label in files), source, counts, classes)


def _read_archive(source: ImageTarSource, path: Path, counts: Counter[str]) -> Iterator[ImageBatch]:
    """Yield the images of an archive in its order, in batches.

    Left out and counted are hidden files, which some systems add to archives, and files that are not images, as in
    WebDataset. Images with the name of an earlier one are read and counted.
    """
    counts["files"] += 1
    images = ((f"{path}: {printable(name)}", content, None) for name, content in _archive_files(path, counts))
    return decode_batches(images, source, counts)


class _BrokenHeaderError(tarfile.ReadError):
    pass


class _Member(tarfile.TarInfo):
    """The header of a file, which is not taken for the padding after an archive if it is damaged."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if any(buf):
                raise _BrokenHeaderError(str(error)) from None
            raise


def _archive_files(path: Path, counts: Counter[str]) -> Iterator[tuple[str, bytes]]:
    position, names = 0, array("Q")  # A set of a million names would take more memory than the images.
    with open_decompressed(path) as stream:
        try:
            # Concatenated archives are read one after another: each ends in zeros, which are skipped.
            with tarfile.open(fileobj=stream, mode="r|", ignore_zeros=True, tarinfo=_Member) as archive:
                while (member := archive.next()) is not None:
                    # The archive would keep the header of each.
                    archive.members.clear()  # type: ignore[attr-defined]
                    if not member.isdir() and _is_image(member.name, counts):
                        if not member.isreg():
                            raise tarfile.ReadError(f"{member.name} is not a file; pack it without links")
                        if member.size > MAX_BYTES:
                            raise tarfile.ReadError(f"{member.name} has {member.size:,} bytes, too many for an image")
                        name = member.name.encode("utf-8", "surrogateescape")
                        names.append(int.from_bytes(hashlib.blake2b(name, digest_size=8).digest()))
                        with archive.extractfile(member) as content:  # type: ignore[union-attr]
                            yield member.name, content.read()
                    position = archive.offset
                # The library accepts the end of the file as the end of the archive, which should be a block of zeros.
                if archive.offset == position:
                    raise _BrokenHeaderError("no zeros follow")
        except tarfile.TarError as error:
            is_cut = isinstance(error, _BrokenHeaderError)
            why = f"it breaks off at byte {position:,}" if is_cut else reason(error)
            raise ValueError(f"{path} is truncated, damaged or not a .tar archive ({why}); replace it") from None
    if repeated := len(names) - len(np.unique(np.frombuffer(names, np.uint64))):
        counts["images with the name of an earlier one"] += repeated


def _is_image(name: str, counts: Counter[str]) -> bool:
    """Return True if a member is to be read; a file without a suffix is, and must be an image."""
    parts, suffix = PurePosixPath(name).parts, PurePosixPath(name).suffix.lower()
    if any(part == "__MACOSX" or (part.startswith(".") and part != "..") for part in parts):
        counts["hidden files left out"] += 1
        return False
    if suffix and suffix not in Image.registered_extensions():
        counts["files without an image suffix left out"] += 1
        return False
    return True
