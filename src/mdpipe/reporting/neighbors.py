"""A picture of samples next to the training images that are nearest to them, each with its distance."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mdpipe.reporting.images import BACKGROUND, GAP, SHOWN_EDGE, Pixels, enlarge

TEXT_HEIGHT = 14
"""Pixels of a line of text."""
INK = (0, 0, 0)
MARGIN = 12
"""Pixels between the sample and its neighbors, and between neighbors by features and by pixels."""


@dataclass(frozen=True)
class Neighbors:
    """Images near each sample, by one kind of distance."""

    title: str
    images: Pixels
    """(N, k, H, W, C)."""
    distances: Sequence[Sequence[float]]
    """(N, k)."""


def neighbor_picture(samples: Pixels, found: Sequence[Neighbors]) -> Image.Image:
    """Lay out one row per sample: the sample, then its neighbors by each kind of distance, the distance below each.

    Args:
        samples: (N, H, W, C) with C = 1 or 3.
        found: the neighbors of the samples.
    """
    scale = max(1, SHOWN_EDGE // samples.shape[1])
    height, width = (size * scale + GAP for size in samples.shape[1:3])
    row_height = height + TEXT_HEIGHT
    columns = 1 + sum(neighbors.images.shape[1] for neighbors in found)
    size = (GAP + columns * width + MARGIN * len(found), TEXT_HEIGHT + GAP + len(samples) * row_height)
    canvas = Image.new("RGB", size, BACKGROUND)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=10)
    left = _draw_column(canvas, enlarge(samples, scale), GAP, row_height)
    draw.text((GAP, 1), "sample", INK, font)
    for neighbors in found:
        left += MARGIN
        draw.text((left, 1), neighbors.title, INK, font)
        for at in range(neighbors.images.shape[1]):
            for row, distances in enumerate(neighbors.distances):
                draw.text((left, TEXT_HEIGHT + height + row * row_height), f"{distances[at]:.3g}", INK, font)
            left = _draw_column(canvas, enlarge(neighbors.images[:, at], scale), left, row_height)
    return canvas


def _draw_column(canvas: Image.Image, images: Pixels, left: int, row_height: int) -> int:
    """Draw images below each other; return where the next column begins."""
    for row, image in enumerate(images):
        canvas.paste(Image.fromarray(np.ascontiguousarray(image)), (left, TEXT_HEIGHT + GAP + row * row_height))
    return left + int(images.shape[2]) + GAP
