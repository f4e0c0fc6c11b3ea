"""How likely a test by sampling is to cry wolf."""

import math

import torch
from torch import Tensor

FALSE_ALARM = 1e-5
"""Share of the seeds at which a right program would fail a chi-square test of ours."""

SMALLEST_CELL = 5
"""Expected count from which the chi-square distribution is a fair approximation; rarer cells are put together."""

FALSE_ALARM_Z = 3.89
"""Two-sided probability 1e-4 of a standard normal."""


def chi_square_chance(counts: Tensor, expected: Tensor) -> float:
    """Chance of counts at least as far from the expected ones, cells x, if these are right."""
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
    """Where the mean square of `count` standard normals lies but for 1e-4 (Wilson and Hilferty)."""
    spread = 2 / (9 * count)
    low, high = ((1 - spread + sign * FALSE_ALARM_Z * math.sqrt(spread)) ** 3 for sign in (-1, 1))
    return low, high
