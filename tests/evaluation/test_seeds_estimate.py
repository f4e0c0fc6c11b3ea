"""Errors over seeds and examples, against exact values and by simulation."""

import math
from itertools import product

import numpy as np
import pytest
from scipy import stats

from mdpipe.evaluation.estimate import paired_difference, ratio_estimate, seeds_estimate


def test_two_seeds_and_three_examples_by_hand() -> None:
    """Seeds have the means 2 and 4; examples, over seeds, 1, 3 and 5; residuals over both are plus or minus 1, 0, 1."""
    costs = np.array([[1.0, 2.0, 3.0], [1.0, 4.0, 7.0]])
    estimate = seeds_estimate(costs, np.ones(3, dtype=np.int64))
    over_seeds = 2 / 2  # the variance of 2 and 4, over 2
    over_examples = 4 / 3  # the variance of 1, 3 and 5, over 3
    both = (4 * 1 / 2) / 6  # four squares of 1 with (2 - 1) (3 - 1) degrees of freedom, over 2 x 3
    assert estimate.value == 3
    assert estimate.stderr_seeds == pytest.approx(math.sqrt(over_seeds))
    assert estimate.stderr_evaluation == pytest.approx(math.sqrt(over_examples))
    assert estimate.stderr == pytest.approx(math.sqrt(over_seeds + over_examples - both))


def test_the_variance_is_unbiased_over_all_outcomes() -> None:
    """Effects of 2 seeds, 2 examples and both of plus or minus b, a, i: 2^8 equally probable tables.

    With a large b, the variance over seeds that is not of the evaluation is never below 0, so nothing is cut off, apart
    from the tables whose seeds have the same sign, for which the formula is written out here.
    """
    b, a, i = 3.0, 1.0, 0.5
    means, variances = [], []
    for signs in product((-1, 1), repeat=8):
        seeds, examples, both = np.array(signs[:2]), np.array(signs[2:4]), np.array(signs[4:]).reshape(2, 2)
        estimate = seeds_estimate(b * seeds[:, None] + a * examples + i * both, np.ones(2, dtype=np.int64))
        interaction = (i * (both - both.mean(0) - both.mean(1, keepdims=True) + both.mean())) ** 2
        variances.append(estimate.stderr_seeds**2 + estimate.stderr_evaluation**2 - interaction.sum() / 4)
        means.append(estimate.value)
        is_cut = estimate.stderr_seeds**2 < interaction.sum() / 4
        assert estimate.stderr**2 == pytest.approx(estimate.stderr_evaluation**2 if is_cut else variances[-1])
    assert np.mean(variances) == pytest.approx(np.var(means))
    assert np.var(means) == pytest.approx(b**2 / 2 + a**2 / 2 + i**2 / 4)


def test_equal_trainings_have_the_error_of_one() -> None:
    """Clusters and sizes count as they do for one training."""
    random = np.random.default_rng(0)
    sizes, clusters = random.integers(1, 9, 40), np.arange(40) // 3
    first, second = random.gamma(2, size=(2, 40)) * sizes
    estimate = seeds_estimate(np.stack([first - second] * 3), sizes, clusters)
    one = paired_difference(first, second, sizes, clusters)
    assert (estimate.value, estimate.stderr) == pytest.approx((one.value, one.stderr))
    assert estimate.stderr_seeds == pytest.approx(0, abs=1e-12)
    scaled = estimate.scale(2)
    assert (scaled.value, scaled.stderr) == (2 * estimate.value, 2 * estimate.stderr)
    assert (scaled.stderr_evaluation, scaled.stderr_seeds) == (
        2 * estimate.stderr_evaluation,
        2 * estimate.stderr_seeds,
    )


def test_one_training_has_no_error_over_seeds() -> None:
    with pytest.raises(ValueError, match="needs two trainings at least, and there are 1"):
        seeds_estimate(np.ones((1, 5)), np.ones(5, dtype=np.int64))


@pytest.mark.parametrize("seed_effect", [0.5, 0.03, 0.0], ids=["seeds dominate", "both matter", "only examples"])
def test_the_error_covers_seeds_and_examples(seed_effect: float) -> None:
    """3 seeds, 60 documents whose effect all seeds share: 95 % intervals of Student's t with 2 degrees of freedom.

    Of 2,000 repetitions, fewer than 93.5 % have a probability of 0.2 % where the coverage is 95 %. Where examples
    matter, it is higher, since their error is known much better. The error of the evaluation covers far less.
    """
    random = np.random.default_rng(1)
    repetitions, seeds, documents = 2000, 3, 60
    clusters = np.repeat(np.arange(documents), 2)
    sizes = np.full(2 * documents, 4)
    covered = covered_by_evaluation = 0
    quantile = stats.t.ppf(0.975, seeds - 1)
    for _ in range(repetitions):
        of_seeds, of_both = random.normal(0, seed_effect, (seeds, 1)), random.normal(0, 0.2, (seeds, 2 * documents))
        of_documents = random.normal(0, 0.2, documents)[clusters]
        estimate = seeds_estimate(sizes * (of_seeds + of_documents + of_both), sizes, clusters)
        covered += abs(estimate.value) <= quantile * estimate.stderr
        covered_by_evaluation += abs(estimate.value) <= 1.96 * estimate.stderr_evaluation
    assert covered / repetitions >= 0.935
    if seed_effect == 0.5:
        assert covered / repetitions <= 0.965
        assert covered_by_evaluation / repetitions < 0.3


def test_the_mean_of_seeds_keeps_what_they_share() -> None:
    """Trainings that find the same examples hard do not make the evaluation more certain."""
    random = np.random.default_rng(2)
    hard = random.normal(3, 1, 50)
    costs = hard + random.normal(0, 0.01, (4, 50))
    one = ratio_estimate(costs[0], np.ones(50, dtype=np.int64)).stderr
    assert seeds_estimate(costs, np.ones(50, dtype=np.int64)).stderr_evaluation == pytest.approx(one, rel=0.02)
