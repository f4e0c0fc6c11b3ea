"""MD4's and D3PM's bounds in T steps: right Riemann sums over the mask rate."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mdpipe.diffusion.objectives.baselines import D3PM
from mdpipe.diffusion.objectives.md4 import MD4, masked_token_losses
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.diffusion.schedules.base import TIME_GRIDS, DiscreteTime, Linear, Schedule
from mdpipe.params.diffusion import CosineConfig, D3PMConfig, LinearConfig, MD4Config
from tests.diffusion.all_kinds import every_schedule
from tests.diffusion.objectives.enumeration import average_entropies, cost_at_rate, every_draw, expectation
from tests.diffusion.tables import SOURCES, exact_table, random_table

pytestmark = pytest.mark.slow

V, L = 3, 3
X = torch.tensor([2, 0, 1])
sources = pytest.mark.parametrize("source", sorted(SOURCES))


def riemann_sum(average: Tensor, schedule: Schedule, times: Tensor) -> Tensor:
    """L sum_i (p_i - p_(i-1)) c(p_i), with p the mask rates at the times."""
    rates = schedule.one_minus_alpha(times)
    return len(average) * (rates.diff() * cost_at_rate(average, rates[1:])).sum()


def average_over(source: str) -> tuple[Tensor, list[tuple[float, Tensor]]]:
    """The source's mean D[n] with its exact conditionals, and each sequence with its chance."""
    joint = SOURCES[source]
    sequences = list(zip(joint[joint > 0].tolist(), joint.nonzero(), strict=True))
    return sum(chance * average_entropies(exact_table(joint), x) for chance, x in sequences), sequences


@given(
    schedule=st.sampled_from([schedule for epsilon in (0.0, 1e-4, 0.1) for schedule in every_schedule(epsilon)]),
    timesteps=st.integers(1, 20),
    time_grid=st.sampled_from(sorted(TIME_GRIDS)),
    seed=st.integers(0, 1000),
)
def test_it_is_the_riemann_sum_and_the_ends(schedule: Schedule, timesteps, time_grid, seed):
    denoiser, objective = (
        random_table(V, L, seed),
        MD4(MD4Config(schedule=schedule.config, timesteps=timesteps, time_grid=time_grid), V),
    )
    first, last = schedule.one_minus_alpha(torch.tensor([0.0, 1.0]).double()).tolist()
    expected = riemann_sum(average_entropies(denoiser, X), schedule, TIME_GRIDS[time_grid](timesteps))
    expected = expected.item() + L * (first + 1 - last) * math.log(V)
    assert expectation(objective, denoiser, X).item() == pytest.approx(expected, rel=1e-10)


@sources
@pytest.mark.parametrize("time_grid", sorted(TIME_GRIDS))
def test_dividing_the_steps_lowers_it_towards_the_entropy(source, time_grid):
    """Strictly, unless the tokens are independent: then masks carry no information and one step is enough."""
    joint = SOURCES[source]
    _, sequences = average_over(source)
    entropy = -sum(chance * math.log(chance) for chance, _ in sequences)
    bounds = [
        sum(
            chance
            * expectation(
                MD4(MD4Config(schedule=LinearConfig(epsilon=0.0), timesteps=count, time_grid=time_grid), len(joint)),
                exact_table(joint),
                x,
            ).item()
            for chance, x in sequences
        )
        for count in (1, 2, 4, 8, 16, 32)
    ]
    if source == "independent tokens":
        assert bounds == pytest.approx([entropy] * len(bounds), rel=1e-12)
        return
    assert all(finer < coarser for coarser, finer in itertools.pairwise(bounds))
    excesses = [bound - entropy for bound in bounds]
    assert 0 < excesses[-1] < 0.1 * excesses[0]


@sources
def test_one_step_predicts_each_token_from_masks_only(source):
    """L_1 = L D[L]."""
    average, sequences = average_over(source)
    joint = SOURCES[source]
    objective = MD4(MD4Config(schedule=LinearConfig(epsilon=0.0), timesteps=1), len(joint))
    bound = sum(chance * expectation(objective, exact_table(joint), x).item() for chance, x in sequences)
    assert bound == pytest.approx((len(average) * average[-1]).item(), rel=1e-12)


@sources
def test_discretization_excess_is_cost_rise_over_2t(source):
    """T (L_T - L_inf) -> L (c(1) - c(0)) / 2 under the linear schedule."""
    average, _ = average_over(source)
    times, schedule = TIME_GRIDS["uniform"](2000), Linear(LinearConfig(epsilon=0.0))
    excess = riemann_sum(average, schedule, times) - average.sum()
    rise = cost_at_rate(average, torch.tensor([0.0, 1.0]).double()).diff()
    assert (2000 * excess).item() == pytest.approx((len(average) * rise / 2).item(), rel=1e-2, abs=1e-9)


@given(timesteps=st.integers(1, 12), epsilon=st.sampled_from([0.0, 1e-4]), seed=st.integers(0, 1000))
def test_linear_bound_on_cosine_grid_is_cosine_on_uniform(timesteps, epsilon, seed):
    denoiser = random_table(V, L, seed)
    on_cosine_grid = expectation(
        MD4(MD4Config(schedule=LinearConfig(epsilon=epsilon), timesteps=timesteps, time_grid="cosine"), V), denoiser, X
    )
    on_uniform_grid = expectation(
        MD4(MD4Config(schedule=CosineConfig(epsilon=epsilon), timesteps=timesteps), V), denoiser, X
    )
    assert on_cosine_grid.item() == pytest.approx(on_uniform_grid.item(), rel=1e-12)


@given(timesteps=st.integers(1, 50), time_grid=st.sampled_from(sorted(TIME_GRIDS)), data=st.data())
def test_each_step_has_equally_many_times(timesteps, time_grid, data):
    """A time in [(i - 1) / T, i / T) draws step i; the largest time below 1 the last one."""
    step = data.draw(st.integers(1, timesteps))
    inside = data.draw(st.floats(0.01, 0.99))
    times, steps = TIME_GRIDS[time_grid](timesteps), DiscreteTime(timesteps, time_grid)
    for time, expected in (((step - 1 + inside) / timesteps, step), (1 - 2.0**-53, timesteps)):
        start, end = steps.interval(torch.tensor([time]).double())
        assert (start, end) == (times[expected - 1], times[expected])


def test_d3pm_is_md4_with_auxiliary_cross_entropy_gradient():
    schedule, denoiser = Linear(), random_table(V, L, 0)
    md4, d3pm = (
        MD4(MD4Config(schedule=schedule.config, timesteps=6), V),
        D3PM(D3PMConfig(schedule=schedule.config, timesteps=6, auxiliary=0.3), V),
    )
    draws = every_draw(md4, X)
    arguments = (X.expand(len(draws.time), -1), draws.time, draws.u)
    total = md4.elbo(denoiser, *arguments).total
    assert torch.equal(d3pm.elbo(denoiser, *arguments).total, total)
    _, end = md4.discrete_time.interval(draws.time)
    x_t = md4.q_sample(arguments[0], end, draws.u)
    entropies = masked_token_losses(md4, denoiser, x_t, end, None, arguments[0]).sum(dim=1)
    (expected,) = torch.autograd.grad((draws.chance * (total + 0.3 * entropies)).sum(), denoiser.table)
    (gradient,) = torch.autograd.grad((draws.chance * d3pm.loss(denoiser, *arguments)).sum(), denoiser.table)
    assert torch.allclose(gradient, expected, rtol=1e-12)


def test_several_masks_at_one_time_are_averaged():
    denoiser, examples = random_table(V, L, 0), torch.arange(50)
    tokens, time = X.expand(50, -1), CounterRNG(0, "time").uniform(0, examples, 1)[:, 0]
    objective = MD4(MD4Config(num_mask_samples=3), V)
    u = CounterRNG(0, "masks").uniform(0, examples, objective.num_mask_samples * L)
    draws = [objective.elbo(denoiser, tokens, time, draw).total for draw in u.split(L, dim=1)]
    assert len(draws) == 3
    assert torch.allclose(objective.loss(denoiser, tokens, time, u), sum(draws) / 3, rtol=1e-12)
