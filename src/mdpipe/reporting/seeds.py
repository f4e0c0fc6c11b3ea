"""Measures of several trainings, and verdicts on claims about them.

Intervals are by Student's t. The region of a claim is fixed before training; the verdict compares the 95 % interval of
the measure with it, and p-values are adjusted by Holm's procedure.

    agrees        the interval is within the region
    disagrees     the interval and the region have no point in common
    cannot tell   otherwise: more trainings or examples are needed, or the measure is close to an end of the region

A false claim "agrees" with a probability of 2.5 % at most. A true one "disagrees" with at most 2.5 %, or 5 % if its
region has two ends. For a region with a margin around "equal", "agrees" is the two one-sided tests of equivalence.

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
    """A measure with its errors, on the scale on which it is estimated: a ratio is its logarithm."""

    value: float
    stderr: float
    """Standard error over trainings and examples."""
    stderr_seeds: float
    """Standard error over trainings only."""
    seeds: int
    """S."""
    stderr_examples: float = 0.0
    """Standard error over examples, without what depends on both example and training."""
    clusters: int = 2
    """G, clusters of examples."""
    is_log: bool = False

    def half_width(self, level: float) -> float:
        r"""Return the half-width h of the interval with coverage 1 - level.

            h^2 = t_{S - 1}^2 V_seeds + t_{G - 1}^2 (V_evaluation - V_both)

        The two variances have S - 1 and G - 1 degrees of freedom, each with its quantile t of Student's distribution
        (the method of variance estimates recovery, Zou and Donner, 2008). It is exact if one of them is 0, and
        conservative if they are similar. One number of degrees of freedom for both is worse: with S - 1 and three
        seeds, intervals are twice as wide as necessary if most of the variance is over examples; with Satterthwaite's
        formula, coverage falls to 92 %.
        """
        quantiles = stdtrit(np.array([self.seeds, self.clusters]) - 1, 1 - level / 2)
        return math.hypot(*(quantiles * (self.stderr_seeds, self.stderr_examples)))

    @property
    def interval(self) -> tuple[float, float]:
        """Return the ends of the 95 % interval."""
        half = self.half_width(LEVEL)
        return self.value - half, self.value + half

    @property
    def value_and_interval(self) -> tuple[float, float, float]:
        """Return the value and the ends of its interval on the scale of the measure: a ratio is not a logarithm."""
        value, (low, high) = self.value, self.interval
        return (math.exp(value), math.exp(low), math.exp(high)) if self.is_log else (value, low, high)

    @classmethod
    def of(cls, estimate: SeedsEstimate, seeds: int) -> "Measured":
        """Return an estimate of this many trainings."""
        return cls(
            estimate.value, estimate.stderr, estimate.stderr_seeds, seeds, estimate.stderr_examples, estimate.clusters
        )


@dataclass(frozen=True)
class Decision:
    """A verdict, and the smallest two-sided level at which it would be another than "cannot tell"."""

    verdict: Verdict
    p: float


class Totals(NamedTuple):
    """Nats of the same N examples under S trainings, or differences of nats, paired over both."""

    nats: Array
    """(S, N)."""
    sizes: NDArray[np.int64]
    """Tokens of each example, (N,)."""
    clusters: NDArray[np.int64]
    """(N,)."""


class Evaluation(NamedTuple):
    """Nats of a run's trainings, and of the further bounds of `evaluate.bounds`."""

    totals: Totals
    bounds: Array
    """Nats by two independent estimates of each of K further bounds, (S, N, K, 2)."""


def pair_trainings(params: Params, *runs: str) -> list[list[str]]:
    """Return the trainings of each run with a seed that all runs have, in the order of the first run's seeds."""
    of_seed = [{params.seed_of(name): name for name in params.replicates().get(run, [run])} for run in runs]
    seeds = [seed for seed in of_seed[0] if all(seed in trainings for trainings in of_seed)]
    return [[trainings[seed] for seed in seeds] for trainings in of_seed]


def measure_bits(totals: Array, sizes: NDArray[np.int64], clusters: NDArray[np.integer] | None) -> Measured:
    """Return the mean bits per token of nats or of differences of nats (S, N), paired over trainings and examples."""
    return Measured.of(seeds_estimate(totals, sizes, clusters).scale(1 / math.log(2)), len(totals))


def difference_of_means(first: Totals, second: Totals) -> Measured:
    r"""Return the mean bits per token on one source minus those on another, of the same trainings.

    The sources share no cluster. Its error is that of the mean over the examples of both of
    (N / N_1) (y - r_s1 n) on the first source and -(N / N_2) (y - r_s2 n) on the second, plus n (r_s1 - r_s2) on both,
    with N_1, N_2 and N tokens of the sources and of both, and r_s the mean cost of a training: its mean over examples
    is the difference of a training, and its residuals are those of the two ratios.
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

    V is the mean of (y - y')^2, twice the variance of one of the two independent estimates y and y' of an example. The
    error is of first order, that of the mean of v_1 / V_1 - v_2 / V_2.

    Args:
        first: Differences y - y' by the first bound, (S, N).
        second: The same by the second one.
        clusters: The cluster of each example, (N,).
    """
    squares = np.square(first), np.square(second)
    means = [float(square.mean()) for square in squares]
    influence = squares[0] / means[0] - squares[1] / means[1]
    estimate = seeds_estimate(influence, np.ones(first.shape[1], dtype=np.int64), clusters)
    return replace(Measured.of(estimate, len(first)), value=math.log(means[0] / means[1]), is_log=True)


def exponent(
    excess: Array, steps: Sequence[int], sizes: NDArray[np.int64], clusters: NDArray[np.integer] | None
) -> Measured:
    r"""Return the slope of log excess on log T, by least squares: sum_T a_T log E_T.

    The error is of first order, that of the mean of sum_T a_T e_T / E_T. If a mean excess E_T is
    below 0, the value is NaN, and the verdict on a claim about it is "cannot tell".

    Args:
        excess: Totals in T steps minus those in continuous time, in nats, (T, S, N).
        steps: T of each.
        sizes: Tokens of each example, (N,).
        clusters: The cluster of each example, (N,).
    """
    log_steps = np.log(steps) - np.log(steps).mean()
    weights = log_steps / np.square(log_steps).sum()
    means = excess.sum(axis=2).mean(axis=1) / sizes.sum()
    with np.errstate(invalid="ignore", divide="ignore"):
        value = float(weights @ np.log(means))
    influence = np.tensordot(weights / means, excess, axes=1)
    return replace(Measured.of(seeds_estimate(influence, sizes, clusters), excess.shape[1]), value=value)


def mean_log_ratio(first: Array, second: Array) -> Measured:
    """Return the mean log ratio of positive numbers (S, K) of S trainings, whose errors are over trainings only.

    The interval is exact for normal log ratios; one training has none, and NaN as its error.
    """
    logs = np.log(first / second).mean(axis=1)
    stderr = float(logs.std(ddof=1)) / math.sqrt(len(logs)) if len(logs) > 1 else math.nan
    return Measured(float(logs.mean()), stderr, stderr, len(logs), is_log=True)


def decide(measured: Measured, above: float | None, below: float | None) -> Decision:
    """Return the verdict on the claim that the measure is above and below what is stated, on the measure's own scale.

    p is twice the smaller one-sided p-value: of "not in the region", the larger one of both ends, or of "in it".
    """
    if math.isnan(measured.value):
        return Decision("cannot tell", 1.0)
    ends = {
        sign: math.log(end) if measured.is_log else end for sign, end in ((1, above), (-1, below)) if end is not None
    }
    # One-sided p-values of the measure being on the region's side of an end, and on the other side.
    p_agrees = max(_upper_tail(measured, end, sign) for sign, end in ends.items())
    p_disagrees = min(_upper_tail(measured, end, -sign) for sign, end in ends.items())
    verdict: Verdict = "cannot tell"
    if p_agrees <= LEVEL / 2:
        verdict = "agrees"
    elif p_disagrees <= LEVEL / 2:
        verdict = "disagrees"
    return Decision(verdict, min(1.0, 2 * min(p_agrees, p_disagrees)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values (1979), in the order of the p-values: with those at most 5 %, the probability of
    any wrong verdict among them is at most 5 %, however the claims depend on each other.
    """
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(order), 0, -1)
    stepped = np.maximum.accumulate(np.minimum(1.0, factors * np.asarray(p_values)[order]))
    return [float(p) for p in stepped[np.argsort(order, kind="stable")]]


def _upper_tail(measured: Measured, end: float, sign: int) -> float:
    """Return the one-sided p-value, small if the measure is clearly above (sign 1) or below (-1) the end.

    It is half the level of the interval that ends there.
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
