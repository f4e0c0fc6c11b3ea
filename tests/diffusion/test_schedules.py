"""Masking schedules: what holds for every one of them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mdpipe.diffusion.schedules import EPSILON, SCHEDULES, Cosine, Linear, Schedule, build_schedule

schedules = st.sampled_from([kind(epsilon) for kind in SCHEDULES.values() for epsilon in (0.0, EPSILON, 0.1)])
interior_times = st.floats(0.001, 0.999).map(lambda time: torch.tensor(time, dtype=torch.float64))


@given(schedule=schedules, time=interior_times)
def test_derivative_is_that_of_alpha(schedule: Schedule, time):
    """By autodiff."""
    time.requires_grad_()
    (slope,) = torch.autograd.grad(schedule.alpha(time), time)
    assert torch.allclose(schedule.derivative(time), slope, rtol=1e-12)


@given(schedule=schedules, time=interior_times)
def test_weight_is_the_log_derivative_of_the_masked_share(schedule: Schedule, time):
    """-alpha' / (1 - alpha) = d/dt log(1 - alpha), by autodiff; positive, so that the loss is."""
    time.requires_grad_()
    (slope,) = torch.autograd.grad((1 - schedule.alpha(time)).log(), time)
    assert torch.allclose(schedule.weight(time), slope, rtol=1e-9)
    assert schedule.weight(time) > 0


@given(schedule=schedules)
def test_alpha_falls_from_one_to_zero_up_to_epsilon(schedule: Schedule):
    alphas = schedule.alpha(torch.linspace(0, 1, 101, dtype=torch.float64))
    assert (alphas.diff() < 0).all()
    ends = torch.tensor([1 - schedule.epsilon, schedule.epsilon], dtype=torch.float64)
    assert torch.allclose(alphas[[0, -1]], ends, atol=1e-15)


def test_the_published_forms():
    """Table 4 at t = 1/3: linear 2/3, cosine 1 - cos(pi/3) = 1/2."""
    third = torch.tensor(1 / 3, dtype=torch.float64)
    assert Linear(0.0).alpha(third).item() == pytest.approx(2 / 3)
    assert Cosine(0.0).alpha(third).item() == pytest.approx(1 / 2)


def test_names_of_params_build_schedules():
    assert build_schedule("linear") == Linear(EPSILON)
    assert build_schedule("cosine") == Cosine(EPSILON)
    with pytest.raises(ValueError, match=r"schedule.kind is 'square'.*cosine, linear"):
        build_schedule("square")


@pytest.mark.parametrize("epsilon", [-0.1, 0.5])
def test_an_impossible_epsilon_is_refused(epsilon):
    with pytest.raises(ValueError, match="epsilon"):
        Linear(epsilon)
