"""Image files: a grid of small images, enlarged so that every pixel is visible, in files with stable bytes."""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from mdpipe.data.artifacts.files import atomic_write

Pixels = npt.NDArray[np.uint8]

JPEG: dict[str, Any] = {"format": "JPEG", "quality": 95, "subsampling": 0}
FORMATS: dict[str, dict[str, Any]] = {
    ".png": {"format": "PNG", "optimize": True},
    ".jpg": JPEG,
    ".jpeg": JPEG,
    ".webp": {"format": "WebP", "lossless": True},
}
"""Pillow's settings for each suffix."""

GAP = 4
"""Pixels between two images and around them all."""
BACKGROUND = (255, 255, 255)
"""Color of the gaps."""


COLUMNS, MAX_COLUMNS = 8, 16
"""Images in a row, and how many there may be."""
SHOWN_EDGE = 64
"""Images are enlarged to about this many pixels."""


def sheet_columns(num_classes: int) -> int:
    """Return the images in a row of a contact sheet: one column per class if they fit, or else `COLUMNS`."""
    return num_classes if 1 < num_classes <= MAX_COLUMNS else COLUMNS


def class_by_class(labels: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """Return the places of `count` examples: the first of each class in their order, then the second, and so on."""
    rank = np.zeros_like(labels)
    for label in np.unique(labels):
        rank[labels == label] = np.arange(np.count_nonzero(labels == label))
    return np.lexsort((labels, rank))[:count]


def contact_sheet(images: Pixels, columns: int = COLUMNS) -> Image.Image:
    """Lay images out in rows of `columns`, each about `SHOWN_EDGE` pixels wide.

    Raises:
        ValueError: see `image_grid`.
    """
    return image_grid(images, columns, max(1, SHOWN_EDGE // images.shape[1]))


def image_grid(images: Pixels, columns: int, scale: int) -> Image.Image:
    """Lay N images of H x W pixels and 1 or 3 channels out in rows, each pixel `scale` x `scale` large.

    Raises:
        ValueError: the array is not (N, H, W, 1) or (N, H, W, 3) uint8 with N > 0, or a number is below 1.
    """
    return compose(enlarge(images, scale), columns)


def enlarge(images: Pixels, scale: int) -> Pixels:
    """Return images (N, H, W, 1 or 3) in RGB, (N, H * scale, W * scale, 3), by repeating their pixels.

    Raises:
        ValueError: see `image_grid`.
    """
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or images.size == 0:
        raise ValueError(f"images should be (N, H, W, 1) or (N, H, W, 3) with N > 0, not {images.shape}")
    if images.dtype != np.uint8:
        raise ValueError(f"images should be uint8, not {images.dtype}")
    if scale < 1:
        raise ValueError(f"scale should be at least 1, not {scale}")
    color = np.broadcast_to(images, (*images.shape[:-1], 3))
    return color.repeat(scale, axis=1).repeat(scale, axis=2)


def compose(images: Pixels, columns: int) -> Image.Image:
    """Lay RGB images (N, H, W, 3) out in rows of `columns`, with gaps between and around; the last may be short.

    Raises:
        ValueError: columns is below 1.
    """
    if columns < 1:
        raise ValueError(f"columns should be at least 1, not {columns}")
    count, height, width, _ = images.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    canvas = np.empty((rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, 3), dtype=np.uint8)
    canvas[:] = BACKGROUND
    for index, image in enumerate(images):
        top = GAP + index // columns * (height + GAP)
        left = GAP + index % columns * (width + GAP)
        canvas[top : top + height, left : left + width] = image
    return Image.fromarray(canvas)


def save_png(image: Image.Image, path: Path) -> None:
    """Write only the pixels: no time and no name of a program."""
    atomic_write(path, encode_png(image))


def encode_png(image: Image.Image) -> bytes:
    """Return the bytes of a PNG file with only the pixels in it."""
    # As an array, which leaves behind what `image.info` would have added.
    return _encode(np.asarray(image), FORMATS[".png"])


def save_image(pixels: Pixels, path: Path) -> None:
    """Write an image (H, W, 1 or 3) in the format of the path's suffix, one of `FORMATS`; JPEG changes its pixels."""
    pixels = pixels.squeeze(axis=2) if pixels.shape[2] == 1 else pixels
    atomic_write(path, _encode(pixels, FORMATS[path.suffix.lower()]))


def _encode(pixels: Pixels, settings: Mapping[str, Any]) -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, **settings)
    return buffer.getvalue()
