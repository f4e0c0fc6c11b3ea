"""What the commands by hand have written, read back."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mdpipe.data.pixels import quantize
from mdpipe.reporting.images import GAP

EDGE, LEVELS = 8, 17
"""Of a digit."""

SHOWN_EDGE = 64
"""Pixels along the edge of a picture as it is shown, whatever its own size."""


def texts_of(printed: str) -> list[str]:
    """The texts under their headings."""
    _, *parts = printed.split("--- sample ")
    return [part.split(" ---\n", 1)[1].removesuffix("\n") for part in parts]


def levels_of(png: Path, edge: int = EDGE, levels: int = LEVELS) -> NDArray[np.uint8]:
    """The levels (N, edge, edge) of the pictures in a grid, whose empty places at its end count as white pictures."""
    grey = np.asarray(Image.open(png).convert("L"))[GAP:, GAP:]
    cell, pixel = SHOWN_EDGE + GAP, SHOWN_EDGE // edge
    rows, columns = grey.shape[0] // cell, grey.shape[1] // cell
    cells = grey.reshape(rows, cell, columns, cell).transpose(0, 2, 1, 3)
    return quantize(cells[:, :, :-GAP:pixel, :-GAP:pixel].reshape(-1, edge, edge), 255, levels)
