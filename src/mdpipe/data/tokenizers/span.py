"""A part of a text between sampled tokens: a prompt, or what surrounds a gap."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Span:
    """The ids of a part of a text, and the text that they decode to within the whole.

    Shapes: ids int64 (n,).
    """

    ids: NDArray[np.int64]
    text: str
    """The part itself, or what is left of it where the tokenizer normalizes text."""
