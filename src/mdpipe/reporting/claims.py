"""Verdicts on claims by several trainings: estimates with Student's t, a rule stated in advance, and Holm's p.

The verdict compares the 95 % interval of a measure with the region of the claim:

    agrees        the interval is within the region
    disagrees     the interval and the region have no point in common
    cannot tell   otherwise: the trainings are too few, too small, or the measure is at the end of the region

A false claim "agrees" with a probability of 2.5 % at most. A true one "disagrees" with at most 2.5 %, or 5 % if its
region has two ends. For a region with a margin around "equal", "agrees" is the two one-sided tests of equivalence.

Shapes: S trainings, N examples, T numbers of steps, K samplers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from mdpipe.evaluation.estimate import SeedsEstimate, seeds_estimate

Array = NDArray[np.float64]
Verdict = Literal["agrees", "disagrees", "cannot tell"]
LEVEL = 0.05
"""Of the intervals, two-sided, and of Holm's procedure."""


@dataclass(frozen=True)
class Measured:
    """A measure with its errors, on the scale on which it is estimated: a ratio is its logarithm."""

    value: float
    stderr: float
    """Over trainings and examples."""
    stderr_seeds: float
    """Over trainings only."""
    seeds: int
    """S; Student's t has S - 1 degrees of freedom."""
    is_log: bool = False

    @property
    def interval(self) -> tuple[float, float]:
        """Return the ends of the 95 % interval; it covers at least as much, as `seeds_estimate` says."""
        half = stdtrit(self.seeds - 1, 1 - LEVEL / 2) * self.stderr
        return self.value - half, self.value + half

    @property
    def shown(self) -> tuple[float, float, float]:
        """Return the value and the ends of its interval on the scale of the measure: a ratio is no logarithm."""
        value, (low, high) = self.value, self.interval
        return (math.exp(value), math.exp(low), math.exp(high)) if self.is_log else (value, low, high)

    @classmethod
    def of(cls, estimate: SeedsEstimate, seeds: int, value: float | None = None, *, is_log: bool = False) -> "Measured":
        """Return a measure of this many trainings with the errors, and perhaps another value than the estimate's."""
        at = estimate.value if value is None else value
        return cls(at, estimate.stderr, estimate.stderr_seeds, seeds, is_log)


@dataclass(frozen=True)
class Judged:
    """A verdict, and the smallest two-sided level at which it would be another than "cannot tell"."""

    verdict: Verdict
    p: float


def of_costs(totals: Array, sizes: NDArray[np.int64], clusters: NDArray[np.integer] | None) -> Measured:
    """Return the mean bits per token of costs in nats (S, N), differences say, paired over trainings and examples."""
    return Measured.of(seeds_estimate(totals, sizes, clusters).scaled(1 / math.log(2)), len(totals))


def variance_ratio(first: Array, second: Array, clusters: NDArray[np.integer] | None) -> Measured:
    r"""Return the logarithm of the ratio of two Monte Carlo variances, log V_1 - log V_2.

    V is the mean of (y - y')^2, twice the variance of one of the two independent estimates y and y' of an example. The
    error is of first order, that of the mean of v_1 / V_1 - v_2 / V_2.

    Args:
        first: y - y' by the first bound, (S, N).
        second: the same by the second one.
        clusters: the cluster of each example, (N,).
    """
    squares = np.square(first), np.square(second)
    means = [float(square.mean()) for square in squares]
    influence = squares[0] / means[0] - squares[1] / means[1]
    estimate = seeds_estimate(influence, np.ones(first.shape[1], dtype=np.int64), clusters)
    return Measured.of(estimate, len(first), math.log(means[0] / means[1]), is_log=True)


def exponent(
    excess: Array, steps: Sequence[int], sizes: NDArray[np.int64], clusters: NDArray[np.integer] | None
) -> Measured:
    r"""Return the slope of log excess on log T, by least squares: sum_T a_T log E_T.

    The error is of first order, that of the mean of sum_T a_T e_T / E_T. A mean excess E_T below 0 has no logarithm:
    then the value is NaN, and no claim about it can be decided.

    Args:
        excess: costs in T steps minus those in continuous time, in nats, (T, S, N).
        steps: T of each.
        sizes: tokens of each example, (N,).
        clusters: the cluster of each example, (N,).
    """
    log_steps = np.log(steps) - np.log(steps).mean()
    weights = log_steps / np.square(log_steps).sum()
    means = excess.sum(axis=2).mean(axis=1) / sizes.sum()
    with np.errstate(invalid="ignore", divide="ignore"):
        value = float(weights @ np.log(means))
    influence = np.tensordot(weights / means, excess, axes=1)
    return Measured.of(seeds_estimate(influence, sizes, clusters), excess.shape[1], value)


def mean_log_ratio(first: Array, second: Array) -> Measured:
    """Return the mean log ratio of positive numbers (S, K) of S trainings, whose errors are over trainings only.

    The interval is exact for normal log ratios; one training has none, and NaN as its error.
    """
    logs = np.log(first / second).mean(axis=1)
    stderr = float(logs.std(ddof=1)) / math.sqrt(len(logs)) if len(logs) > 1 else math.nan
    return Measured(float(logs.mean()), stderr, stderr, len(logs), is_log=True)


def judge(measured: Measured, above: float | None, below: float | None) -> Judged:
    """Return the verdict on the claim that the measure is above and below what is stated, on the measure's own scale.

    p is twice the smaller one-sided p-value: of "not in the region", the larger one of both ends, or of "in it".
    """
    ends = [None if end is None else math.log(end) if measured.is_log else end for end in (above, below)]
    if math.isnan(measured.value):
        return Judged("cannot tell", 1.0)
    # One-sided p-values of the measure being on the region's side of an end, and on the other side.
    inside = [_upper_tail(measured, end, sign) for end, sign in zip(ends, (1, -1), strict=True) if end is not None]
    outside = [_upper_tail(measured, end, sign) for end, sign in zip(ends, (-1, 1), strict=True) if end is not None]
    p_agrees, p_disagrees = max(inside), min(outside)
    verdict: Verdict = "cannot tell"
    if p_agrees <= LEVEL / 2:
        verdict = "agrees"
    elif p_disagrees <= LEVEL / 2:
        verdict = "disagrees"
    return Judged(verdict, min(1.0, 2 * min(p_agrees, p_disagrees)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values (1979), in the order of the p-values: with those at most 5 %, the probability of
    any wrong verdict among them is at most 5 %, however the claims depend on each other.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def _upper_tail(measured: Measured, end: float, sign: int) -> float:
    """Return P(t > sign (value - end) / stderr), small if the measure is clearly above (sign 1) or below (-1) it."""
    distance = sign * (measured.value - end)
    if measured.stderr == 0:
        return 0.0 if distance > 0 else 1.0
    return float(stdtr(measured.seeds - 1, -distance / measured.stderr))
