"""Leakage: the share of evaluation windows that also stand in the training text.

A text is its code points. A window c_0 ... c_49 has the hash sum_j mixed(c_j) BASE^j mod 2^64, so with the prefix sums
S_i = sum_{k < i} mixed(c_k) BASE^k the window that begins at p has (S_{p + 50} - S_p) BASE^-p. Windows are taken for
equal if their hashes are: that m windows and n places give one false find has a chance of about m n / 2^64.

Texts are read in blocks, so the memory that a search needs does not grow with the text.
"""

from collections.abc import Iterator
from functools import cache

import numpy as np
from numpy.typing import NDArray

WINDOW = 50
BLOCK = 1 << 17
"""Characters hashed at once, at least a window: few enough that the arrays of a block stay in the processor's cache."""

_BASE = 0xD1342543DE82EF95  # 5 mod 8, so that its powers repeat only after 2^62 of them
# A flag for each value of a hash's low bits: most places of a text need only this look. For that there are some 2^4 of
# them for each wanted hash, but no fewer than 2^22, which are 4 MB, and no more than 2^26.
_BITS_ABOVE_WANTED, _FEWEST_BITS, _MOST_BITS = 4, 22, 26


class Windows:
    """The evaluation windows that are looked for.

    They are consecutive and do not overlap; a rest of a document that is shorter than WINDOW is no window.
    """

    def __init__(self) -> None:
        self._documents: list[NDArray[np.uint64]] = []

    def __len__(self) -> int:
        """Number of windows in total, repeats included."""
        return sum(map(len, self._documents))

    def add(self, text: str) -> None:
        """Look also for the windows of this evaluation document."""
        self._documents.append(window_hashes(text, WINDOW))

    @property
    def hashes(self) -> NDArray[np.uint64]:
        """The hashes of all windows, repeats included, in the order of the documents."""
        return np.concatenate([np.empty(0, np.uint64), *self._documents])


def window_hashes(text: str, step: int) -> NDArray[np.uint64]:
    """The hashes of the windows that begin at 0, step, 2 step, ... and end within the text."""
    parts = [hashes[-start % step :: step] for start, hashes in _blocks(text)]
    return np.concatenate([np.empty(0, np.uint64), *parts])


def found_in(text: str, wanted: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Those of the wanted hashes that some window of the text has, wherever it begins.

    Shapes: wanted (M,), sorted and distinct; the result is so too.
    """
    bits = min(max(len(wanted).bit_length() + _BITS_ABOVE_WANTED, _FEWEST_BITS), _MOST_BITS)
    may_be_wanted = np.zeros(1 << bits, np.bool_)
    may_be_wanted[_low_bits(wanted, bits)] = True
    found = np.zeros(len(wanted), np.bool_)
    for _, hashes in _blocks(text):
        candidates = hashes[may_be_wanted[_low_bits(hashes, bits)]]
        candidates.sort()  # Looking them up then goes through `wanted` once, where it would jump about.
        # One below all that is wanted gets place -1, the largest, which it is not.
        places = np.searchsorted(wanted, candidates, side="right") - 1
        found[places[wanted[places] == candidates]] = True
    return wanted[found]


def share_found(windows: NDArray[np.uint64], found: NDArray[np.uint64]) -> float:
    """The share of the windows, repeats included, whose hash was found; 0 if there are no windows."""
    return float(np.isin(windows, found).sum() / max(len(windows), 1))


def _blocks(text: str) -> Iterator[tuple[int, NDArray[np.uint64]]]:
    """The first place of each block, and the hashes of the windows that begin there and after; each place once."""
    letters, powers, inverses = _mixed_letters(), _powers(_BASE, BLOCK), _powers(pow(_BASE, -1, 1 << 64), BLOCK)
    for start in range(0, len(text) - WINDOW + 1, BLOCK - WINDOW + 1):
        block = text[start : start + BLOCK].encode("utf-32-le", "surrogatepass")
        terms = letters[np.frombuffer(block, "<u4")]
        terms *= powers[: len(terms)]
        sums = np.zeros(len(terms) + 1, np.uint64)
        np.cumsum(terms, out=sums[1:])
        hashes = sums[WINDOW:] - sums[:-WINDOW]
        hashes *= inverses[: len(hashes)]
        yield start, hashes


def _low_bits(hashes: NDArray[np.uint64], bits: int) -> NDArray[np.int64]:
    return (hashes & np.uint64((1 << bits) - 1)).view(np.int64)


@cache
def _powers(base: int, count: int) -> NDArray[np.uint64]:
    """base^0, base^1, ... mod 2^64."""
    factors = np.full(count, base, np.uint64)
    factors[0] = 1
    return np.multiply.accumulate(factors)


@cache
def _mixed_letters() -> NDArray[np.uint64]:
    """The number that stands for each code point: splitmix64 of it.

    So the numbers of letters have nothing to do with each other, and regular text has no regular hashes.
    """
    mixed = (np.arange(0x110000, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
