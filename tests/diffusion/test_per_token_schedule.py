"""GenMD4's schedule: one polynomial per token."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mdpipe.diffusion.objectives.genmd4 import PerTokenSchedule
from mdpipe.params.diffusion import EPSILON

exponents = st.floats(0.05, 50)
distances = st.floats(-12, math.log10(0.5)).map(lambda exponent: 10**exponent)
times = st.one_of(distances, distances.map(lambda distance: 1 - distance), st.sampled_from([0.0, 1.0]))


def per_token(values: list[float], epsilon: float) -> PerTokenSchedule:
    """Return the schedule with these exponents, in float64."""
    schedule = PerTokenSchedule(len(values), 1.0, epsilon).double()
    schedule.raw.data = torch.tensor(values, dtype=torch.float64).expm1().log()
    return schedule


@given(values=st.lists(exponents, min_size=1, max_size=4), epsilon=st.sampled_from([0.0, 1e-4, 0.1]), time=times)
def test_every_token_has_the_polynomial_of_its_exponent(values, epsilon, time):
    schedule = per_token(values, epsilon)
    t = torch.tensor([[time]], dtype=torch.float64)
    alpha, masked = schedule.alpha(t), schedule.one_minus_alpha(t)
    assert alpha.shape == masked.shape == (1, 1, len(values))
    expected = torch.tensor([(1 - epsilon) * time**value for value in values], dtype=torch.float64)
    assert torch.allclose(masked, expected, rtol=1e-9, atol=1e-300)
    assert torch.allclose(alpha, 1 - expected, rtol=0, atol=1e-14)


@given(values=st.lists(exponents, min_size=1, max_size=4), epsilon=st.sampled_from([0.0, 1e-4, 0.1]))
def test_alpha_is_one_at_time_0_and_epsilon_at_time_1(values, epsilon):
    first, last = per_token(values, epsilon).alpha(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert (first == 1).all()
    assert torch.allclose(last, torch.full_like(last, epsilon), rtol=1e-12, atol=0)


@given(initial=st.floats(1e-3, 1e3))
def test_exponents_are_equal_at_first(initial):
    """Up to the float32 precision of the parameter."""
    found = PerTokenSchedule(3, initial, EPSILON).w
    assert found.tolist() == pytest.approx([initial] * 3, rel=1e-5)
    assert found.dtype == torch.float64
