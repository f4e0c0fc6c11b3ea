"""The numbers of a plan: how well each is known, and how it is written."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from fractions import Fraction

THOUSANDS = ("", "k", "M", "G", "T", "P", "E", "Z", "Y")
DIGITS = 3
"""Significant digits of what is printed; of hours, which depend on a guess at the hardware, two."""
HOUR_DIGITS = 2
LEAST_HOURS = 0.01
"""Less is not worth a number."""


@dataclass(frozen=True)
class Figure:
    """A number and its doubts, which sums and products keep.

    Where some of it is unknown, `value` is what there is at least.
    """

    value: float = 0
    estimated: bool = False
    unknown: bool = False
    """Whether there is more, and nothing says how much."""

    def __add__(self, other: "Figure") -> "Figure":
        return Figure(self.value + other.value, self.estimated or other.estimated, self.unknown or other.unknown)

    def __mul__(self, factor: "Figure | float") -> "Figure":
        by = factor if isinstance(factor, Figure) else Figure(factor)
        return Figure(self.value * by.value, self.estimated or by.estimated, self.unknown or by.unknown)

    def less(self, parts: Iterable["Figure"]) -> "Figure":
        """What remains without these parts."""
        away = total(parts)
        if self.unknown or away.unknown:
            return UNKNOWN
        return Figure(max(self.value - away.value, 0), self.estimated or away.estimated)

    def share(self, share: float) -> "Figure":
        """ceil(share * n), as data are split: of the share as a decimal."""
        return Figure(math.ceil(Fraction(str(share)) * Fraction(self.value)), self.estimated, self.unknown)

    def over(self, size: float) -> "Figure":
        """ceil(n / size): the parts of this size that it takes."""
        return Figure(math.ceil(self.value / size), self.estimated, self.unknown)

    def roughly(self, guessed: bool = True) -> "Figure":
        """The same, as an estimate if so; nothing at all is none."""
        return Figure(self.value, self.estimated or (guessed and self.value > 0), self.unknown)

    def written(self, text: str) -> str:
        """A text for the value, with its doubts: `?` for what is unknown, `-` for nothing, `~` for an estimate."""
        if self.unknown:
            return "?"
        return f"{'~' * self.estimated}{text}" if self.value else "-"


NOTHING, UNKNOWN = Figure(), Figure(unknown=True)


def total(figures: Iterable[Figure]) -> Figure:
    """Their sum."""
    return sum(figures, NOTHING)


def counted(figure: Figure) -> str:
    """As 1.54 M."""
    return figure.written(" ".join(filter(None, _scaled(figure.value))))


def in_bytes(figure: Figure) -> str:
    """As 1.54 MB."""
    number, prefix = _scaled(figure.value)
    return figure.written(f"{number} {prefix}B")


def in_hours(figure: Figure) -> str:
    """As 12 h."""
    if 0 < figure.value < LEAST_HOURS:
        return replace(figure, estimated=False).written(f"<{LEAST_HOURS} h")
    return figure.written(f"{_rounded(figure.value, HOUR_DIGITS)} h")


def at_least(write: Callable[[Figure], str], figure: Figure) -> str:
    """A sum as `write` has it; where some of it is unknown, what there is at least, if that says anything."""
    known = write(replace(figure, unknown=False))
    return f"at least {known}" if figure.unknown and not known.startswith(("-", "<")) else write(figure)


def _scaled(value: float) -> tuple[str, str]:
    """A value as a number below 1,000 and the letter of a power of 1,000."""
    power = 0
    while power + 1 < len(THOUSANDS) and float(f"{value / 1000**power:.{DIGITS}g}") >= 1000:
        power += 1
    return _rounded(value / 1000**power, DIGITS), THOUSANDS[power]


def _rounded(value: float, digits: int) -> str:
    """A number to so many significant digits, without an exponent."""
    places = max(0, digits - 1 - math.floor(math.log10(value))) if value > 0 else 0
    rounded = float(f"{value:.{digits}g}")
    text = f"{rounded:,.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
