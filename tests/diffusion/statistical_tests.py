"""Statistical tests of samples, with their false-alarm rates."""

import math

import torch
from torch import Tensor

FALSE_ALARM = 1e-5
"""Fraction of the seeds at which a correct program would fail a chi-square test."""

SMALLEST_CELL = 5
"""Expected count from which the chi-square distribution is a good approximation; rarer cells are merged."""

FALSE_ALARM_Z = 3.89
"""Two-sided probability 1e-4 of a standard normal."""


def chi_square_chance(counts: Tensor, expected: Tensor) -> float:
    """Return the p-value of counts per cell, given the expected counts."""
    counts, expected = counts.double().flatten(), expected.double().flatten()
    if not torch.isclose(counts.sum(), expected.sum()):
        raise ValueError(f"{counts.sum()} were counted and {expected.sum()} expected")
    order = expected.argsort()
    together = int((expected[order].cumsum(0) < SMALLEST_CELL).sum()) + 1
    counts, expected = (torch.cat([x[order][:together].sum()[None], x[order][together:]]) for x in (counts, expected))
    statistic = ((counts - expected) ** 2 / expected).sum()
    freedom = torch.tensor(len(counts) - 1, dtype=torch.float64)
    return torch.special.gammaincc(freedom / 2, statistic / 2).item()


def normal_quantiles_of_variance(count: int) -> tuple[float, float]:
    """Return the interval with probability 1 - 1e-4 of the mean square of standard normals (Wilson and Hilferty)."""
    spread = 2 / (9 * count)
    low, high = ((1 - spread + sign * FALSE_ALARM_Z * math.sqrt(spread)) ** 3 for sign in (-1, 1))
    return low, high
