"""Verdicts on claims: measures against values by hand, the rule against closed forms, and error rates by simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from mdpipe.evaluation.estimate import seeds_estimate
from mdpipe.reporting.seeds import (
    Decision,
    Measured,
    Totals,
    decide,
    difference_of_means,
    exponent,
    holm,
    mean_log_ratio,
    measure_bits,
    variance_ratio,
)

ONES = np.ones(60, dtype=np.int64)


def measured(value: float, stderr: float = 1.0, seeds: int = 3, *, is_log: bool = False) -> Measured:
    return Measured(value, stderr, stderr, seeds, is_log=is_log)


def test_p_is_that_of_a_two_sided_t_test() -> None:
    values = np.array([0.3, 0.9, 0.5])
    found = measured(values.mean(), stats.sem(values))
    assert decide(found, None, 0.0).p == pytest.approx(stats.ttest_1samp(values, 0.0).pvalue)
    assert decide(found, 0.0, None).p == decide(found, None, 0.0).p
    low, high = stats.t.interval(0.95, 2, loc=values.mean(), scale=stats.sem(values))
    assert found.value_and_interval[1:] == pytest.approx((low, high))


@pytest.mark.parametrize("seeds", [2, 3, 5, 30])
@pytest.mark.parametrize(("above", "below"), [(None, 0.5), (0.5, None), (-2.0, 0.5)])
def test_the_verdict_is_where_the_interval_lies(seeds: int, above: float | None, below: float | None) -> None:
    low_end, high_end = -math.inf if above is None else above, math.inf if below is None else below
    seen = set()
    for value in np.linspace(-60, 60, 1201):
        found = measured(value, 0.25, seeds)
        _, low, high = found.value_and_interval
        expected = "cannot tell"
        if low_end < low and high < high_end:
            expected = "agrees"
        elif high < low_end or high_end < low:
            expected = "disagrees"
        decision = decide(found, above, below)
        assert decision.verdict == expected
        assert (decision.p <= 0.05) == (expected != "cannot tell")
        seen.add(expected)
    reachable = {"cannot tell", "disagrees"} if seeds == 2 and above is not None and below is not None else None
    assert seen == (reachable or {"agrees", "disagrees", "cannot tell"})


def test_a_ratio_is_decided_by_its_logarithm() -> None:
    found = measured(math.log(2.0), 0.1, is_log=True)
    assert decide(found, 1.0, None) == decide(measured(math.log(2.0), 0.1), 0.0, None)
    assert decide(found, 1.0, None).verdict == "agrees"
    _, low, high = found.value_and_interval
    assert low * high == pytest.approx(4.0)


def test_an_error_of_zero_decides_and_no_value_does_not() -> None:
    assert decide(measured(-0.1, 0.0), None, 0.0) == Decision("agrees", 0.0)
    assert decide(measured(0.1, 0.0), None, 0.0) == Decision("disagrees", 0.0)
    assert (
        decide(measured(math.nan), None, 0.0) == decide(measured(0.0, 0.0), None, 0.0) == Decision("cannot tell", 1.0)
    )


def test_holm_is_the_published_step_down() -> None:
    """By hand: 4 x 0.01, 3 x 0.02, then 2 x 0.03, and 0.06 as the largest so far."""
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0]


def test_an_interval_is_exact_for_either_error() -> None:
    """Student's t with the degrees of freedom of the only error that there is; p is the level that ends at 0."""
    for seeds, clusters in ((3, 36), (5, 20)):
        of_seeds = Measured(1.0, 0.5, 0.5, seeds, 0.0, clusters)
        of_examples = Measured(1.0, 0.5, 0.0, seeds, 0.5, clusters)
        for found, freedom in ((of_seeds, seeds - 1), (of_examples, clusters - 1)):
            assert found.value_and_interval[1:] == pytest.approx(stats.t.interval(0.95, freedom, loc=1.0, scale=0.5))
            assert decide(found, 0.0, None).p == pytest.approx(2 * stats.t.sf(2.0, freedom))


@pytest.mark.parametrize("seed_effect", [0.0, 0.02, 0.05, 0.1, 0.5])
@pytest.mark.parametrize("interaction", [0.0, 0.2, 1.0])
def test_intervals_cover_what_they_state(seed_effect: float, interaction: float) -> None:
    """3 seeds and 36 documents: at least 95 % of 4,000 intervals, less 3 standard errors of that number."""
    random, repetitions, documents = np.random.default_rng(7), 4000, 36
    covered = 0
    for _ in range(repetitions):
        costs = random.normal(0, seed_effect, (3, 1)) + random.normal(0, 0.3, documents)
        costs += random.normal(0, interaction, (3, documents))
        _, low, high = measure_bits(costs, ONES[:documents], None).value_and_interval
        covered += low <= 0 <= high
    assert covered / repetitions >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / repetitions)


def test_examples_are_known_better_than_seeds() -> None:
    """Where all trainings share the error, an interval is half as wide as by the degrees of freedom of three seeds."""
    shared = np.random.default_rng(8).normal(0, 1, 36) + np.zeros((3, 1))
    found = measure_bits(shared, ONES[:36], None)
    assert found.half_width(0.05) == pytest.approx(stats.t.ppf(0.975, 35) * found.stderr)
    assert found.half_width(0.05) < 0.5 * stats.t.ppf(0.975, 2) * found.stderr


def test_a_difference_of_two_sources_has_the_errors_of_both() -> None:
    """Sources of other sizes; clusters of the same numbers in both are different clusters."""
    random = np.random.default_rng(9)
    sources = [
        Totals(random.gamma(2, size=(4, count)) * sizes, sizes, np.arange(count) // 2)
        for count, sizes in ((40, random.integers(1, 9, 40)), (60, random.integers(1, 9, 60)))
    ]
    found = difference_of_means(*sources)
    first, second = (seeds_estimate(*source).scale(1 / math.log(2)) for source in sources)
    assert found.value == pytest.approx(first.value - second.value)
    ratios = [(source.nats.sum(axis=1) / source.sizes.sum()) / math.log(2) for source in sources]
    assert found.stderr_seeds == pytest.approx(stats.sem(ratios[0] - ratios[1]))
    # G / (G - 1) of the clusters of both sources, in place of each source's own.
    shared = [source.scale(math.sqrt((source.clusters - 1) / source.clusters)) for source in (first, second)]
    both = math.hypot(*(source.stderr_examples for source in shared)) * math.sqrt(found.clusters / (found.clusters - 1))
    assert (found.clusters, found.stderr_examples) == (50, pytest.approx(both))


@pytest.mark.parametrize("effect", [0.0, 0.05], ids=["at the end of both regions", "at the margin"])
def test_wrong_verdicts_are_as_rare_as_stated(effect: float) -> None:
    """3 seeds, 60 examples, and a truth at the end of the region, where a verdict of either kind is wrong or luck.

    More than 3.5 % of 2,000 repetitions have a probability of 0.3 % if the rate is 2.5 %.
    """
    random = np.random.default_rng(0)
    repetitions, agrees, disagrees, equal = 2000, 0, 0, 0
    for _ in range(repetitions):
        costs = effect + random.normal(0, 0.03, (3, 1)) + random.normal(0, 0.05, 60) + random.normal(0, 0.05, (3, 60))
        found = measure_bits(costs * math.log(2), ONES, None)
        verdict = decide(found, None, effect).verdict
        agrees += verdict == "agrees"
        disagrees += verdict == "disagrees"
        equal += decide(found, -0.05, 0.05).verdict == "agrees"
    assert max(agrees, disagrees) / repetitions <= 0.035
    if effect == 0.05:
        assert equal / repetitions <= 0.035


def test_a_difference_is_in_bits_with_the_errors_of_seeds() -> None:
    costs = np.random.default_rng(1).normal(0.1, 0.2, (3, 60))
    found, expected = measure_bits(costs, ONES, None), seeds_estimate(costs, ONES).scale(1 / math.log(2))
    assert (found.value, found.stderr) == (expected.value, expected.stderr)
    assert (found.stderr_seeds, found.seeds, found.is_log) == (expected.stderr_seeds, 3, False)


def test_a_ratio_of_variances_covers_the_true_one() -> None:
    """Differences of two draws of variances 4 and 1, of 3 trainings with the same draws up to a factor."""
    random = np.random.default_rng(2)
    covered = 0
    for _ in range(500):
        factor = np.exp(random.normal(0, 0.05, (2, 3, 1)))
        shared = random.normal(0, 1, (2, 400)) * np.array([[2.0], [1.0]])
        found = variance_ratio(factor[0] * shared[0], factor[1] * shared[1], None)
        _, low, high = found.value_and_interval
        covered += low <= 4 <= high
    assert found.is_log
    assert covered / 500 >= 0.92


def test_a_ratio_of_equal_draws_has_no_error() -> None:
    draws = np.random.default_rng(3).normal(0, 1, (3, 60))
    found = variance_ratio(3 * draws, draws, None)
    assert (found.value, found.stderr) == pytest.approx((math.log(9), 0), abs=1e-12)


def test_the_exponent_of_a_power_law_is_exact() -> None:
    steps, cost = [8, 16, 32, 64], np.random.default_rng(4).uniform(1, 2, (3, 60))
    found = exponent(np.stack([cost * T**-1.0 for T in steps]), steps, ONES, None)
    assert (found.value, found.stderr) == pytest.approx((-1, 0), abs=1e-9)


def test_the_exponent_covers_the_true_one() -> None:
    random, steps = np.random.default_rng(5), [8, 16, 32]
    covered = 0
    for _ in range(500):
        of_seeds = np.exp(random.normal(0, 0.05, (3, 3, 1)))
        noise = random.normal(0, 1, (3, 1, 60)) + random.normal(0, 1, (3, 3, 60))
        excess = np.array([T**-1.0 for T in steps])[:, None, None] * of_seeds * (4 + noise)
        _, low, high = exponent(excess, steps, ONES, None).value_and_interval
        covered += low <= -1 <= high
    assert covered / 500 >= 0.92


def test_a_negative_excess_has_no_exponent() -> None:
    excess = np.ones((2, 3, 60))
    excess[1] = -1
    assert math.isnan(exponent(excess, [8, 16], ONES, None).value)


def test_a_mean_ratio_is_geometric_and_its_error_over_seeds() -> None:
    first, second = np.array([[2.0, 8.0], [4.0, 4.0], [8.0, 8.0]]), np.full((3, 2), 2.0)
    found = mean_log_ratio(first, second)
    by_seed = [math.log(2), math.log(2), math.log(4)]
    assert found.value == pytest.approx(np.mean(by_seed))
    assert found.stderr == pytest.approx(stats.sem(by_seed))
    assert (found.value_and_interval[0], found.seeds) == (pytest.approx(2 ** (4 / 3)), 3)
