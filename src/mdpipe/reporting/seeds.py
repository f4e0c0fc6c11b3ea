"""Estimates over several trainings, and verdicts on claims about them.

Intervals use Student's t. The region of a claim is fixed before training. Its verdict compares the 95 % interval with
the region, and p-values are adjusted by Holm's procedure.

    agrees        the interval is inside the region
    disagrees     the interval is outside the region
    cannot tell   the interval contains an end of the region: it takes more trainings or examples to tell

The probability that a false claim "agrees" is at most 2.5 %. The probability that a true one "disagrees" is at most
2.5 %, or 5 % if its region has two ends. If the region is an interval around 0, "agrees" means that the two one-sided
tests of equivalence reject.

Shapes: S trainings, N examples, T numbers of steps, K samplers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import bisect
from scipy.special import stdtrit

from mdpipe.evaluation.estimate import SeedsEstimate, seeds_estimate
from mdpipe.params import Params

Array = NDArray[np.float64]
Verdict = Literal["agrees", "disagrees", "cannot tell"]
LEVEL = 0.05
"""Significance level of the intervals, two-sided, and of Holm's procedure."""
SMALLEST_P = 1e-12
"""Accuracy of p-values; smaller ones are rounded up to it."""


@dataclass(frozen=True)
class Measured:
    """An estimate with its errors, on the scale of the estimation: a ratio is estimated as its logarithm."""

    value: float
    stderr: float
    """Standard error over trainings and examples."""
    stderr_seeds: float
    """Standard error over trainings only."""
    seeds: int
    """S, the number of trainings."""
    stderr_examples: float = 0.0
    """Standard error over examples, without the interaction of example and training."""
    clusters: int = 2
    """G, the number of clusters of examples."""
    is_log: bool = False

    def half_width(self, level: float) -> float:
        r"""Return the half-width h of the interval with coverage 1 - level.

            h^2 = t_{S - 1}^2 V_seeds + t_{G - 1}^2 (V_evaluation - V_both)

        The two variances have S - 1 and G - 1 degrees of freedom, and each has its own quantile t of Student's
        distribution (method of variance estimates recovery, Zou and Donner, 2008). The coverage is exact if one
        variance is 0, and too large if they are similar. One number of degrees of freedom for both is worse. With S - 1
        and three seeds, intervals are twice as wide as necessary if most of the variance is over examples. With
        Satterthwaite's formula, coverage falls to 92 %.
        """
        quantiles = stdtrit(np.array([self.seeds, self.clusters]) - 1, 1 - level / 2)
        return math.hypot(*(quantiles * (self.stderr_seeds, self.stderr_examples)))

    @property
    def value_and_interval(self) -> tuple[float, float, float]:
        """Return the value and the ends of its 95 % interval; logarithms of ratios are converted to ratios."""
        half = self.half_width(LEVEL)
        value, low, high = self.value, self.value - half, self.value + half
        return (math.exp(value), math.exp(low), math.exp(high)) if self.is_log else (value, low, high)

    @classmethod
    def from_estimate(cls, estimate: SeedsEstimate, seeds: int) -> "Measured":
        """Return the estimate over `seeds` trainings."""
        return cls(
            estimate.value, estimate.stderr, estimate.stderr_seeds, seeds, estimate.stderr_examples, estimate.clusters
        )


@dataclass(frozen=True)
class Decision:
    """A verdict, and the smallest two-sided significance level at which it is not "cannot tell"."""

    verdict: Verdict
    p: float


class Totals(NamedTuple):
    """Nats of the same N examples under S trainings, or differences of nats, paired by example and training."""

    nats: Array
    """(S, N)."""
    sizes: NDArray[np.int64]
    """Tokens of each example, (N,)."""
    clusters: NDArray[np.int64]
    """(N,)."""


class Evaluation(NamedTuple):
    """Nats of the trainings of a run, and their further bounds from `evaluate.bounds`."""

    totals: Totals
    bounds: Array
    """Nats of two independent estimates of each of the K further bounds, (S, N, K, 2)."""


def pair_trainings(params: Params, *runs: str) -> list[list[str]]:
    """Return the trainings of each run with the seeds that all runs have, in the order of the first run's seeds."""
    of_seed = [{params.seed_of(name): name for name in params.replicates().get(run, [run])} for run in runs]
    seeds = [seed for seed in of_seed[0] if all(seed in trainings for trainings in of_seed)]
    return [[trainings[seed] for seed in seeds] for trainings in of_seed]


def measure_bits(totals: Array, sizes: NDArray[np.int64], clusters: NDArray[np.integer] | None) -> Measured:
    """Return the mean bits per token of nats or of differences of nats (S, N), paired over trainings and examples."""
    return Measured.from_estimate(seeds_estimate(totals, sizes, clusters).scale(1 / math.log(2)), len(totals))


def difference_of_means(first: Totals, second: Totals) -> Measured:
    r"""Return the mean bits per token on one source minus those on another, of the same trainings.

    The sources have no cluster in common. Let y and n be the nats and tokens of an example, N_1 and N_2 the tokens of
    the sources, N = N_1 + N_2, and r_s1 and r_s2 the nats per token of training s. Then every example counts with

        (N / N_1) (y - r_s1 n) + n (r_s1 - r_s2)     on the first source
        -(N / N_2) (y - r_s2 n) + n (r_s1 - r_s2)    on the second source

    The sum divided by N is the difference of training s, and the residuals are those of the two ratios.
    """
    ratios = [totals.nats.sum(axis=1, keepdims=True) / totals.sizes.sum() for totals in (first, second)]
    sizes = np.concatenate([first.sizes, second.sizes])
    parts = [
        sign * sizes.sum() / totals.sizes.sum() * (totals.nats - ratio * totals.sizes)
        for sign, totals, ratio in zip((1, -1), (first, second), ratios, strict=True)
    ]
    nats = np.concatenate(parts, axis=1) + (ratios[0] - ratios[1]) * sizes
    clusters = np.concatenate([first.clusters, first.clusters.max() + 1 + second.clusters])
    return measure_bits(nats, sizes, clusters)


def variance_ratio(first: Array, second: Array, clusters: NDArray[np.integer] | None) -> Measured:
    r"""Return the logarithm of the ratio of two Monte Carlo variances, log V_1 - log V_2.

    V is the mean of v = (y - y')^2, where y and y' are two independent estimates of the same example: twice the
    variance of one estimate. The error is the first-order one, of the mean of v_1 / V_1 - v_2 / V_2.

    Args:
        first: Differences y - y' by the first bound, (S, N).
        second: Differences by the second bound, (S, N).
        clusters: The cluster of each example, (N,).
    """
    squares = np.square(first), np.square(second)
    means = [float(square.mean()) for square in squares]
    influence = squares[0] / means[0] - squares[1] / means[1]
    estimate = seeds_estimate(influence, np.ones(first.shape[1], dtype=np.int64), clusters)
    return replace(Measured.from_estimate(estimate, len(first)), value=math.log(means[0] / means[1]), is_log=True)


def exponent(
    excess: Array, steps: Sequence[int], sizes: NDArray[np.int64], clusters: NDArray[np.integer] | None
) -> Measured:
    r"""Return the least-squares slope of the log excess on log T: sum_T a_T log E_T.

    The error is the first-order one, of the mean of sum_T a_T e_T / E_T. If a mean excess E_T is negative, the value
    is NaN, and the verdict on a claim about it is "cannot tell".

    Args:
        excess: Totals in T steps minus those in continuous time, in nats, (T, S, N).
        steps: The T numbers of steps.
        sizes: Tokens of each example, (N,).
        clusters: The cluster of each example, (N,).
    """
    log_steps = np.log(steps) - np.log(steps).mean()
    weights = log_steps / np.square(log_steps).sum()
    means = excess.sum(axis=2).mean(axis=1) / sizes.sum()
    with np.errstate(invalid="ignore", divide="ignore"):
        value = float(weights @ np.log(means))
    influence = np.tensordot(weights / means, excess, axes=1)
    return replace(Measured.from_estimate(seeds_estimate(influence, sizes, clusters), excess.shape[1]), value=value)


def mean_log_ratio(first: Array, second: Array) -> Measured:
    """Return the mean log ratio of positive numbers (S, K) of S trainings, with errors over trainings only.

    The interval is exact if log ratios are normally distributed. One training has no interval: its error is NaN.
    """
    logs = np.log(first / second).mean(axis=1)
    stderr = float(logs.std(ddof=1)) / math.sqrt(len(logs)) if len(logs) > 1 else math.nan
    return Measured(float(logs.mean()), stderr, stderr, len(logs), is_log=True)


def decide(measured: Measured, above: float | None, below: float | None) -> Decision:
    """Return the verdict on the claim that the value is above `above` and below `below`; a ratio is not a logarithm.

    p is twice the smaller of two one-sided p-values: of being outside the region, the larger one of its two ends, and
    of being inside.
    """
    if math.isnan(measured.value):
        return Decision("cannot tell", 1.0)
    ends = {
        sign: math.log(end) if measured.is_log else end for sign, end in ((1, above), (-1, below)) if end is not None
    }
    # Small if the value is inside of all ends, and small if it is outside of one.
    p_agrees = max(_upper_tail(measured, end, sign) for sign, end in ends.items())
    p_disagrees = min(_upper_tail(measured, end, -sign) for sign, end in ends.items())
    verdict: Verdict = "cannot tell"
    if p_agrees <= LEVEL / 2:
        verdict = "agrees"
    elif p_disagrees <= LEVEL / 2:
        verdict = "disagrees"
    return Decision(verdict, min(1.0, 2 * min(p_agrees, p_disagrees)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's (1979) adjusted p-values, in the order of the p-values.

    The probability of any wrong verdict among those with at most 5 % is at most 5 %, for any dependence of the claims.
    """
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(order), 0, -1)
    stepped = np.maximum.accumulate(np.minimum(1.0, factors * np.asarray(p_values)[order]))
    return [float(p) for p in stepped[np.argsort(order, kind="stable")]]


def _upper_tail(measured: Measured, end: float, sign: int) -> float:
    """Return the one-sided p-value, small if the measure is clearly above (sign 1) or below (-1) the end.

    It is half the level at which the interval ends there.
    """
    distance = sign * (measured.value - end)
    if measured.half_width(LEVEL) == 0:
        return 0.0 if distance > 0 else 1.0
    if distance == 0:
        return 0.5
    level = SMALLEST_P
    if measured.half_width(level) > abs(distance):
        level = bisect(lambda level: measured.half_width(level) - abs(distance), level, 1.0, xtol=SMALLEST_P)
    return level / 2 if distance > 0 else 1 - level / 2
