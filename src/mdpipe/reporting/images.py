"""Sheets of small images, enlarged so that every pixel is visible, in files with stable bytes.

Images are in a grid, or are samples next to the training images that are nearest to them, each with its distance.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

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
TEXT_HEIGHT = 14
"""Pixels of a line of text."""
INK = (0, 0, 0)
MARGIN = 12
"""Pixels between the sample and its neighbors, and between neighbors by features and by pixels."""


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
    """Lay images out in rows of `columns`, each about `SHOWN_EDGE` pixels wide."""
    return image_grid(images, columns, max(1, SHOWN_EDGE // images.shape[1]))


def image_grid(images: Pixels, columns: int, scale: int) -> Image.Image:
    """Lay images (N, H, W, 1 or 3) out in rows, each pixel `scale` x `scale` large."""
    return compose(enlarge(images, scale), columns)


def enlarge(images: Pixels, scale: int) -> Pixels:
    """Return images (N, H, W, 1 or 3) in RGB, (N, H * scale, W * scale, 3), by repeating their pixels."""
    color = np.broadcast_to(images, (*images.shape[:-1], 3))
    return color.repeat(scale, axis=1).repeat(scale, axis=2)


def compose(images: Pixels, columns: int) -> Image.Image:
    """Lay RGB images (N, H, W, 3) out in rows of `columns`, with gaps between and around; the last may be short."""
    count, height, width, _ = images.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    cells = np.full((rows * columns, height + GAP, width + GAP, 3), BACKGROUND, dtype=np.uint8)
    cells[:count, GAP:, GAP:] = images
    grid = cells.reshape(rows, columns, *cells.shape[1:]).swapaxes(1, 2).reshape(rows * cells.shape[1], -1, 3)
    canvas = Image.new("RGB", (grid.shape[1] + GAP, grid.shape[0] + GAP), BACKGROUND)
    canvas.paste(Image.fromarray(grid))
    return canvas


@dataclass(frozen=True)
class Neighbors:
    """Images near each sample, by one kind of distance."""

    title: str
    images: Pixels
    """(N, k, H, W, C)."""
    distances: Sequence[Sequence[float]]
    """(N, k)."""


def neighbor_sheet(samples: Pixels, found: Sequence[Neighbors]) -> Image.Image:
    """Lay out one row per sample: the sample, then its neighbors by each kind of distance, the distance below each.

    Args:
        samples: (N, H, W, C) with C = 1 or 3.
        found: The neighbors of the samples.
    """
    scale = max(1, SHOWN_EDGE // samples.shape[1])
    height, width = (size * scale + GAP for size in samples.shape[1:3])
    row_height = height + TEXT_HEIGHT
    blocks = [Neighbors("sample", samples[:, None], [[]] * len(samples)), *found]
    columns = sum(block.images.shape[1] for block in blocks)
    size = (GAP + columns * width + MARGIN * len(found), TEXT_HEIGHT + GAP + len(samples) * row_height)
    canvas = Image.new("RGB", size, BACKGROUND)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=10)
    left = GAP
    for block in blocks:
        draw.text((left, 1), block.title, INK, font)
        for row, (images, distances) in enumerate(zip(block.images, block.distances, strict=True)):
            top = TEXT_HEIGHT + GAP + row * row_height
            for column, image in enumerate(enlarge(images, scale)):
                canvas.paste(Image.fromarray(image), (left + column * width, top))
            for column, distance in enumerate(distances):
                draw.text((left + column * width, top + height - GAP), f"{distance:.3g}", INK, font)
        left += block.images.shape[1] * width + MARGIN
    return canvas


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
