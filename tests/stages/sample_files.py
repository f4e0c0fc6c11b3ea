"""Read what `mdpipe generate` and `mdpipe infill` wrote."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mdpipe.data.pixels import quantize
from mdpipe.reporting.images import GAP

EDGE, LEVELS = 8, 17
"""Of a digit."""

SHOWN_EDGE = 64
"""Edge in pixels of a displayed image of any size."""


def texts_of(printed: str) -> list[str]:
    """The texts under their headings."""
    _, *parts = printed.split("--- sample ")
    return [part.split(" ---\n", 1)[1].removesuffix("\n") for part in parts]


def levels_of(png: Path, edge: int = EDGE, levels: int = LEVELS) -> NDArray[np.uint8]:
    """Return the levels (N, edge, edge) of the images in a grid; empty cells at its end count as white images."""
    gray = np.asarray(Image.open(png).convert("L"))[GAP:, GAP:]
    cell, pixel = SHOWN_EDGE + GAP, SHOWN_EDGE // edge
    rows, columns = gray.shape[0] // cell, gray.shape[1] // cell
    cells = gray.reshape(rows, cell, columns, cell).transpose(0, 2, 1, 3)
    return quantize(cells[:, :, :-GAP:pixel, :-GAP:pixel].reshape(-1, edge, edge), 255, levels)
