"""Laws of every masking schedule, at all times and close to the ends."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mdpipe.diffusion.schedules.base import Cosine, Geometric, Linear, Polynomial, Schedule
from mdpipe.params.diffusion import (
    EPSILON,
    CosineConfig,
    GeometricConfig,
    LinearConfig,
    PolynomialConfig,
    ScheduleConfig,
)
from tests.diffusion.all_kinds import every_schedule

schedules = st.sampled_from([schedule for epsilon in (0.0, EPSILON, 0.1) for schedule in every_schedule(epsilon)])
cushioned = st.sampled_from([schedule for epsilon in (EPSILON, 0.1) for schedule in every_schedule(epsilon)])


def scalar(time: float) -> torch.Tensor:
    return torch.tensor(time, dtype=torch.float64)


distances = st.floats(-12, math.log10(0.5)).map(lambda exponent: 10**exponent)
interior_times = st.one_of(distances, distances.map(lambda distance: 1 - distance)).map(scalar)
"""As likely to be 1e-12 from an end as to be in the middle."""
times = st.one_of(interior_times, st.sampled_from([0.0, 1.0]).map(scalar))


def test_every_schedule_is_among_those_tested():
    assert {type(schedule.config) for schedule in every_schedule()} == set(ScheduleConfig.kinds.values())


@given(schedule=schedules, time=interior_times)
def test_raw_derivative_is_the_slope_of_raw(schedule: Schedule, time):
    """By autodiff."""
    time.requires_grad_()
    (slope,) = torch.autograd.grad(schedule.raw(time), time)
    assert torch.allclose(schedule.raw_derivative(time), slope, rtol=1e-12)


@given(schedule=schedules, time=interior_times)
def test_weight_is_log_derivative_of_mask_probability(schedule: Schedule, time):
    """-alpha' / (1 - alpha) = d/dt log(1 - alpha), by autodiff; positive, so that the loss is."""
    time.requires_grad_()
    (slope,) = torch.autograd.grad(schedule.one_minus_alpha(time).log(), time)
    assert torch.allclose(schedule.weight(time), slope, rtol=1e-9)
    assert schedule.weight(time) > 0


@given(schedule=schedules, time=times)
def test_one_minus_alpha_and_alpha_sum_to_one(schedule: Schedule, time):
    assert torch.allclose(
        schedule.alpha(time) + schedule.one_minus_alpha(time), torch.ones_like(time), rtol=0, atol=1e-15
    )


@given(schedule=schedules, time=times)
def test_the_inverse_finds_the_time(schedule: Schedule, time):
    """Up to the rounding of alpha: all digits for a steep schedule, fewer for a flat one."""
    alpha = schedule.alpha(time)
    found = schedule.inverse(alpha)
    assert 0 <= found <= 1
    assert (schedule.alpha(found) - alpha).abs() < 1e-15
    rounding = 1e-15
    later, earlier = (schedule.raw_inverse((schedule.raw(time) + off).clamp(0, 1)) for off in (-rounding, rounding))
    assert earlier.clamp(0, 1) - 1e-15 <= found <= later.clamp(0, 1) + 1e-15


@given(schedule=schedules, time=st.floats(0.01, 0.99).map(scalar))
def test_the_inverse_is_the_time_away_from_the_ends(schedule: Schedule, time):
    assert torch.allclose(schedule.inverse(schedule.alpha(time)), time, rtol=0, atol=1e-9)


@given(schedule=schedules)
def test_the_inverse_of_an_unreached_alpha_is_the_nearest_end(schedule: Schedule):
    assert schedule.inverse(scalar(0.0)) == 1
    assert schedule.inverse(scalar(1.0)) == 0


@given(schedule=schedules)
def test_alpha_falls(schedule: Schedule):
    alphas = schedule.alpha(torch.linspace(0, 1, 101, dtype=torch.float64))
    assert (alphas.diff() < 0).all()


@given(schedule=schedules)
def test_alpha_falls_from_one_to_zero_up_to_epsilon(schedule: Schedule):
    """The geometric schedule, from exp(-beta_min) to exp(-beta_max) up to epsilon."""
    first, last = (math.exp(-1e-5), math.exp(-20)) if isinstance(schedule, Geometric) else (1, 0)
    ends = torch.tensor([first, last], dtype=torch.float64) * (1 - 2 * schedule.epsilon) + schedule.epsilon
    assert torch.allclose(schedule.alpha(torch.tensor([0.0, 1.0], dtype=torch.float64)), ends, atol=1e-15)


@given(schedule=cushioned, end=st.sampled_from([0.0, 1.0]).map(scalar))
def test_with_epsilon_everything_is_finite_at_both_ends(schedule: Schedule, end):
    for value in (schedule.alpha, schedule.raw_derivative, schedule.weight):
        assert value(end).isfinite()


def test_the_published_forms():
    """Table 4 at t = 1/3: linear 2/3, cosine 1 - cos(pi/3) = 1/2, and so on."""
    third = scalar(1 / 3)
    assert Linear(LinearConfig(epsilon=0.0)).alpha(third).item() == pytest.approx(2 / 3)
    assert Polynomial(PolynomialConfig(epsilon=0.0, exponent=3.0)).alpha(third).item() == pytest.approx(26 / 27)
    assert Geometric(GeometricConfig(epsilon=0.0)).alpha(third).item() == pytest.approx(
        math.exp(-((1e-5) ** (2 / 3)) * 20 ** (1 / 3))
    )
    assert Cosine(CosineConfig(epsilon=0.0)).alpha(third).item() == pytest.approx(1 / 2)


def test_the_published_weights():
    """Table 4 at t = 1/3: linear 1 / t, polynomial w / t, geometric (its sign put right), cosine pi/2 tan(pi/3)."""
    third, b = scalar(1 / 3), (1e-5) ** (2 / 3) * 20 ** (1 / 3)
    assert Linear(LinearConfig(epsilon=0.0)).weight(third).item() == pytest.approx(3)
    assert Polynomial(PolynomialConfig(epsilon=0.0, exponent=3.0)).weight(third).item() == pytest.approx(9)
    expected = math.exp(-b) / (1 - math.exp(-b)) * b * math.log(20 / 1e-5)
    assert Geometric(GeometricConfig(epsilon=0.0)).weight(third).item() == pytest.approx(expected)
    assert Cosine(CosineConfig(epsilon=0.0)).weight(third).item() == pytest.approx(math.pi / 2 * math.tan(math.pi / 3))


@pytest.mark.parametrize("exponent", [1.0, 3.0, 100.0])
def test_the_weight_of_a_vanishing_mask_probability_is_finite(exponent):
    """It is w / t, although t^w may underflow."""
    schedule = Polynomial(PolynomialConfig(epsilon=0.0, exponent=exponent))
    time = torch.tensor([5e-4, 1e-5, 0.3], dtype=torch.float64)
    assert torch.allclose(schedule.weight(time), exponent / time, rtol=1e-12)
    assert (schedule.one_minus_alpha(time)[1] == 0) == (exponent == 100)


@pytest.mark.parametrize("schedule", every_schedule())
def test_a_config_builds_its_schedule(schedule: Schedule):
    built = Schedule.build(schedule.config)
    assert type(built) is type(schedule)
    assert built.config == schedule.config


def test_a_schedule_has_the_defaults_of_its_config():
    assert Linear().config == LinearConfig()
    assert Linear().epsilon == EPSILON
