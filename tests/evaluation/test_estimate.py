import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdpipe.evaluation.estimate import Estimate, paired_difference, ratio_estimate


@given(costs=st.lists(st.floats(-100, 100), min_size=2, max_size=50), size=st.integers(1, 9))
def test_with_equal_sizes_it_is_the_error_of_a_mean(costs: list[float], size: int) -> None:
    estimate = ratio_estimate(np.array(costs), np.full(len(costs), size))
    assert estimate.value == pytest.approx(np.mean(costs) / size, abs=1e-9)
    assert estimate.stderr == pytest.approx(np.std(costs, ddof=1) / math.sqrt(len(costs)) / size, abs=1e-9)


def test_an_example_counts_by_its_size() -> None:
    """Three windows that all cost 2 a token say so without any doubt, the short one too."""
    estimate = ratio_estimate(np.array([8.0, 8.0, 2.0]), np.array([4, 4, 1]))
    assert (estimate.value, estimate.stderr) == (2, 0)


def test_the_exponential_has_the_error_of_its_tangent() -> None:
    estimate = Estimate(math.log(10), 0.01).exponential()
    assert (estimate.value, estimate.stderr) == pytest.approx((10, 0.1))


def test_shared_difficulty_cancels_in_paired_difference() -> None:
    """Costs that differ by 3 a token say so without any doubt, however they are scattered."""
    sizes = np.array([4, 4, 1])
    second = np.array([80.0, -7.0, 2.0])
    assert paired_difference(second + 3 * sizes, second, sizes) == Estimate(3, 0)
    with pytest.raises(ValueError, match="costs of 3 and of 2, and sizes of 3"):
        paired_difference(second, second[:2], sizes)


@given(costs=st.lists(st.tuples(st.floats(-100, 100), st.floats(-100, 100)), min_size=2, max_size=50))
def test_a_paired_difference_is_the_mean_of_the_differences(costs: list[tuple[float, float]]) -> None:
    first, second = np.array(costs).T
    estimate = paired_difference(first, second, np.full(len(costs), 2))
    assert estimate.value == pytest.approx(np.mean(first - second) / 2, abs=1e-9)
    assert estimate.stderr == pytest.approx(np.std(first - second, ddof=1) / math.sqrt(len(costs)) / 2, abs=1e-9)


def test_one_example_says_nothing_about_the_others() -> None:
    with pytest.raises(ValueError, match="needs two examples at least, and this split has 1"):
        ratio_estimate(np.array([1.0]), np.array([1]))
