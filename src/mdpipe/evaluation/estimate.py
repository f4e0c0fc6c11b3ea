"""Estimates: values with standard errors.

Shapes: N examples, S seeds.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PILOT_SAMPLES = 4
"""Samples per example of the pilot that decides how many `num_mc_samples: auto` spends."""
NORMAL_95 = 1.96
"""Half-width of a 95 % confidence interval in standard errors."""


@dataclass(frozen=True)
class Estimate:
    """A value and its standard error, in the same unit."""

    value: float
    stderr: float

    def scale(self, factor: float) -> "Estimate":
        """Return the estimate in another unit."""
        return Estimate(self.value * factor, self.stderr * factor)

    def exponential(self) -> "Estimate":
        """Return exp(value), with the standard error exp(value) * stderr of the delta method."""
        value = math.exp(self.value)
        return Estimate(value, value * self.stderr)


@dataclass(frozen=True)
class SeedsEstimate:
    """A mean over trainings with different seeds, with standard errors in the same unit."""

    value: float
    stderr: float
    """Over seeds and examples: what another set of trainings and another sample of data could change."""
    stderr_evaluation: float
    """Over examples only, for exactly these trainings."""
    stderr_seeds: float
    """Over seeds only, for exactly these examples: the standard deviation of the seeds' values divided by sqrt(S)."""
    stderr_examples: float
    """The part of `stderr_evaluation` that all trainings share: sqrt(V_evaluation - V_both), see `seeds_estimate`."""
    clusters: int
    """G."""

    def scale(self, factor: float) -> "SeedsEstimate":
        """Return the estimate in another unit."""
        return SeedsEstimate(
            value=self.value * factor,
            stderr=self.stderr * factor,
            stderr_evaluation=self.stderr_evaluation * factor,
            stderr_seeds=self.stderr_seeds * factor,
            stderr_examples=self.stderr_examples * factor,
            clusters=self.clusters,
        )


def ratio_estimate(
    totals: NDArray[np.float64], sizes: NDArray[np.int64], clusters: NDArray[np.integer] | None = None
) -> Estimate:
    r"""Estimate the cost per token of a source, from N examples with costs y_e and sizes n_e in G clusters.

    r = sum_e y_e / sum_e n_e,  stderr = sqrt(G / (G - 1) * sum_c (sum_{e in c} (y_e - r n_e))^2) / sum_e n_e

    This is the ratio estimator, since the last window of a text may be shorter than the others, with its cluster-robust
    error. The clusters are assumed to be independent samples from the source, the examples of one cluster are not; the
    error includes the randomness of the costs within each example.

    Args:
        totals: Costs, (N,).
        sizes: Tokens of each example, (N,).
        clusters: The cluster of each example, (N,), such as its document; None if all examples are independent.

    Raises:
        ValueError: There are fewer than two examples.
    """
    if len(totals) < 2:
        raise ValueError(
            f"a standard error needs two examples at least, and this split has {len(totals)}; hold out more"
            " of the data in params.yaml, or lower the dataset's `seq_len`"
        )
    ratio = totals.sum() / sizes.sum()
    residuals = totals - ratio * sizes
    if clusters is not None:
        residuals = np.bincount(np.unique(clusters, return_inverse=True)[1], weights=residuals)
    variance = len(residuals) / (len(residuals) - 1) * np.square(residuals).sum()
    return Estimate(float(ratio), float(np.sqrt(variance) / sizes.sum()))


def seeds_estimate(
    totals: NDArray[np.float64], sizes: NDArray[np.int64], clusters: NDArray[np.integer] | None = None
) -> SeedsEstimate:
    r"""Estimate the cost per token of a source under a way to train, from S trainings evaluated on the same examples.

    A training's cost of example e is n_e (r + b_s) + a_e + i_se: b_s is the effect of the seed, a_e of the example and
    of the random times and masks, which all trainings share, and i_se of both together. With equal n = 1,

    r = mean_s r_s,  Var r = var(b) / S + var(a) / N + var(i) / (S N)

    Three variances can be estimated, the last two from the residuals u_sc = sum_{e in c} (y_se - r_s n_e):

    V_seeds = sum_s (r_s - r)^2 / (S (S - 1)), with mean var(b) / S + var(i) / (S N)
    V_evaluation = G / (G - 1) sum_c (mean_s u_sc)^2 / n^2, with mean var(a) / N + var(i) / (S N)
    V_both = G / (G - 1) sum_sc (u_sc - mean_s u_sc)^2 / (S (S - 1) n^2), with mean var(i) / (S N)

    so that Var r = V_evaluation + V_seeds - V_both: the variance for two-way clusters (Cameron, Gelbach and Miller,
    2011), here with the corrections for finite S and G that make it unbiased. The difference V_seeds - V_both is an
    estimate of var(b) / S; where it is negative, it is set to 0. With few seeds the standard error is itself uncertain:
    `mdpipe.reporting.seeds.Measured` has intervals.

    Args:
        totals: Costs, (S, N), or differences of costs between two runs, one row per pair of trainings.
        sizes: Tokens of each example, (N,).
        clusters: The cluster of each example, (N,); None if all examples are independent.

    Raises:
        ValueError: There are fewer than two seeds or examples.
    """
    seeds = len(totals)
    if seeds < 2:
        raise ValueError(f"an error over seeds needs two trainings at least, and there are {seeds}")
    mean = ratio_estimate(totals.mean(0), sizes, clusters)
    ratios = totals.sum(1) / sizes.sum()
    residuals = totals - ratios[:, None] * sizes
    if clusters is not None:
        index = np.unique(clusters, return_inverse=True)[1]
        residuals = np.stack([np.bincount(index, weights=row) for row in residuals])
    groups = residuals.shape[1]
    interaction = np.square(residuals - residuals.mean(0)).sum() / (seeds * (seeds - 1) * sizes.sum() ** 2)
    over_seeds, over_examples = float(ratios.var(ddof=1)) / seeds, mean.stderr**2
    both = float(groups / (groups - 1) * interaction)
    return SeedsEstimate(
        value=mean.value,
        stderr=math.sqrt(over_examples + max(over_seeds - both, 0)),
        stderr_evaluation=mean.stderr,
        stderr_seeds=math.sqrt(over_seeds),
        stderr_examples=math.sqrt(max(over_examples - both, 0)),
        clusters=groups,
    )


def mean_estimate(values: NDArray[np.float64], clusters: NDArray[np.integer] | None = None) -> Estimate:
    """Estimate the mean of values (N,), which are independent or have clusters (N,).

    Raises:
        ValueError: There are fewer than two.
    """
    return ratio_estimate(values, np.ones(len(values), dtype=np.int64), clusters)


def proportion_estimate(count: int, total: int) -> Estimate:
    r"""Estimate a proportion p from `count` of `total` independent trials.

    stderr = sqrt(p (1 - p) / n), the binomial one, which is 0 where p is 0 or 1, however few trials there are. There it
    is the half-width of Wilson's interval (1927) for one standard error, 1 / (2 (n + 1)).

    Raises:
        ValueError: There are no trials.
    """
    if not total:
        raise ValueError("a proportion needs one trial at least")
    proportion = count / total
    if count in (0, total):
        return Estimate(proportion, 1 / (2 * (total + 1)))
    return Estimate(proportion, math.sqrt(proportion * (1 - proportion) / total))


def paired_difference(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    sizes: NDArray[np.int64],
    clusters: NDArray[np.integer] | None = None,
) -> Estimate:
    """Estimate how much more a token costs under the first model than under the second, on the same examples.

    Variation between examples that both models share cancels, so the error is smaller than for two separate estimates.

    Args:
        first: Costs under the first model, (N,).
        second: Costs under the second model, (N,).
        sizes: Tokens of each example, (N,).
        clusters: The cluster of each example, (N,); None if all examples are independent.

    Raises:
        ValueError: The models were not measured on the same number of examples, or on fewer than two.
    """
    if not len(first) == len(second) == len(sizes):
        raise ValueError(
            f"a paired difference needs the same examples: there are costs of {len(first)} and of {len(second)}, and"
            f" sizes of {len(sizes)}"
        )
    return ratio_estimate(first - second, sizes, clusters)


def unigram_nll(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return -log p of each token in nats, (V,), from its training counts plus one."""
    nll: NDArray[np.float64] = np.log((counts + 1).sum()) - np.log(counts + 1)
    return nll


def choose_num_mc_samples(stderr_mc: float, half_width: float, maximum: int) -> int:
    """Return the number of samples per example that meets a half-width of the 95 % interval, `maximum` at most.

    Stratified samples gain more than independent ones, for which this is the law: the half-width is met or undercut.

    Args:
        stderr_mc: Monte Carlo error of a pilot of `PILOT_SAMPLES` samples.
        half_width: Half-width in the same unit.
        maximum: An even number.
    """
    num_mc_samples = PILOT_SAMPLES
    while num_mc_samples < maximum and NORMAL_95 * stderr_mc * math.sqrt(PILOT_SAMPLES / num_mc_samples) > half_width:
        num_mc_samples = min(2 * num_mc_samples, maximum)
    return num_mc_samples
