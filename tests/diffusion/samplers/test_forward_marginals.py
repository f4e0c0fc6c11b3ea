"""The number of masks at each time is that of the forward process, whatever the network predicts."""

import pytest
import torch
from torch import Tensor

from mdpipe.diffusion.schedules.base import TIME_GRIDS, Cosine, Linear, Schedule, cosine_grid, uniform_grid
from mdpipe.params.diffusion import CosineConfig, LinearConfig
from tests.diffusion.samplers.denoisers import RNG, CopiedBit, Independent, all_masks, sampler_of
from tests.diffusion.statistical_tests import FALSE_ALARM, chi_square_chance

MASK = 2

ways = pytest.mark.parametrize(
    ("schedule", "time_grid"),
    [
        (Linear(), "uniform"),
        (Linear(), "cosine"),
        (Cosine(), "uniform"),
        (Linear(LinearConfig(epsilon=0.2)), "uniform"),
    ],
    ids=["linear, uniform grid", "linear, cosine grid", "cosine, uniform grid", "a fifth left over"],
)
algorithm_2 = pytest.mark.parametrize("kind", ["ancestral_stepwise", "two_stage", "ancestral", "genmd4_ancestral"])


def unmask_probs(schedule: Schedule, times: Tensor) -> Tensor:
    """Return the probability that a token is unmasked in each step, and after the last; they sum to 1.

    All tokens are masked at time 1, though alpha(1) = epsilon, so each is delta alpha / (1 - epsilon). Tokens
    still masked at time 0, a fraction epsilon / (1 - epsilon), are sampled at once.
    """
    alphas = schedule.alpha(times).flip(0)
    return torch.cat([alphas.diff(), 1 - alphas[-1:]]) / (1 - alphas[0])


@algorithm_2
@ways
@pytest.mark.parametrize("steps", [1, 4, 16])
def test_copied_bits_disagree_as_often_as_unmasked_together(kind, schedule, time_grid, steps):
    """P = 0.5 sum (delta alpha / (1 - epsilon))^2, the tokens left over being the last step.

    10,000 samples, both assertions within 4.5 standard errors: false alarm 7e-6 each.
    """
    count = 10_000
    sampler = sampler_of(kind, steps, time_grid)
    samples = sampler(CopiedBit(), schedule, 2, all_masks(count, 2), RNG, torch.arange(count))
    expected = 0.5 * (unmask_probs(schedule, TIME_GRIDS[time_grid](steps)) ** 2).sum().item()
    disagreeing = (samples[:, 0] != samples[:, 1]).double().mean().item()
    assert abs(disagreeing - expected) < 4.5 * (expected * (1 - expected) / count) ** 0.5
    assert abs(samples[:, 0].double().mean() - 0.5) < 4.5 * (0.25 / count) ** 0.5


@algorithm_2
@ways
def test_unmasking_steps_are_multinomial_for_any_network(kind, schedule, time_grid):
    """The steps of the two tokens of 10,000 samples, jointly, though each token decides what the other is."""
    count, steps, left = 10_000, 4, []
    sampler_of(kind, steps, time_grid)(
        CopiedBit(),
        schedule,
        2,
        all_masks(count, 2),
        RNG,
        torch.arange(count),
        on_step=lambda _done, _of, tokens: left.append(tokens == MASK),
    )
    when = torch.stack(left).sum(dim=0)
    counts = torch.bincount(when[:, 0] * (steps + 1) + when[:, 1], minlength=(steps + 1) ** 2)
    probs = unmask_probs(schedule, TIME_GRIDS[time_grid](steps))
    assert chi_square_chance(counts, count * torch.outer(probs, probs)) > FALSE_ALARM


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("ancestral_stepwise", {}),
        ("two_stage", {}),
        ("ancestral", {}),
        ("genmd4_ancestral", {}),
        ("remdm", {"eta": 0.5}),
        ("remdm", {"eta": 1.0}),
        ("predictor_corrector", {"num_corrector_steps": 2}),
    ],
)
@pytest.mark.parametrize(
    "schedule", [Linear(LinearConfig(epsilon=0.0)), Cosine(CosineConfig(epsilon=0.0))], ids=["linear", "cosine"]
)
def test_the_masked_count_is_binomial_at_every_time(kind, settings, schedule):
    """Chi-square of 10,000 samples of 4 tokens at each of 4 times; without epsilon, so that all is masked at time 1."""
    count, length, steps, masked = 10_000, 4, 5, []
    sampler_of(kind, steps, **settings)(
        Independent(0.5, 0.5),
        schedule,
        2,
        all_masks(count, length),
        RNG,
        torch.arange(count),
        on_step=lambda _done, _of, tokens: masked.append((tokens == MASK).sum(dim=1)),
    )
    choose = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], dtype=torch.float64)
    number = torch.arange(length + 1)
    for time, numbers in zip(uniform_grid(steps).flip(0)[1:-1], masked, strict=False):
        alpha = schedule.alpha(time)
        chances = choose * (1 - alpha) ** number * alpha ** (length - number)
        assert chi_square_chance(torch.bincount(numbers, minlength=length + 1), count * chances) > FALSE_ALARM


@pytest.mark.parametrize("kind", ["ancestral_stepwise", "two_stage", "ancestral", "maskgit", "genmd4_ancestral"])
def test_the_two_ways_of_sampling_give_the_same_samples(kind):
    """From the same random numbers, under linear schedule and cosine grid or cosine schedule and uniform grid."""
    denoiser, start, examples = Independent(0.3, 0.7), all_masks(64, 50), torch.arange(64)
    first = sampler_of(kind, 20, "cosine")(denoiser, Linear(), 2, start, RNG, examples)
    second = sampler_of(kind, 20, "uniform")(denoiser, Cosine(), 2, start, RNG, examples)
    assert torch.equal(first, second)


@pytest.mark.parametrize("steps", [1, 7, 50])
def test_euler_and_tau_leaping_are_ancestral_for_linear_uniform(steps):
    """The reverse rate at t, -alpha'(t) / (1 - alpha(t)), times the step's length is the unmasking probability."""
    time_steps = sampler_of("ancestral_stepwise", steps).time_steps(Linear())
    for step in time_steps[:steps]:
        rate = Linear().weight(torch.tensor(step.t, dtype=torch.float64)).item()
        assert step.unmask_prob == pytest.approx(rate / steps, rel=1e-9)


def test_euler_step_unmasks_less_than_ancestral_on_cosine():
    """By the curvature of the cosine schedule, which falls ever more slowly towards time 1."""
    for step in sampler_of("ancestral_stepwise", steps=8).time_steps(Cosine())[1:7]:
        rate = Cosine().weight(torch.tensor(step.t, dtype=torch.float64)).item()
        assert step.unmask_prob > 1.03 * rate / 8


def test_alpha_0_of_one_needs_no_step_at_time_0():
    assert cosine_grid(5)[0] == 0
    for schedule, steps in ((Linear(LinearConfig(epsilon=0.0)), 5), (Linear(), 6)):
        time_steps = sampler_of("ancestral_stepwise", 5, "cosine").time_steps(schedule)
        assert len(time_steps) == steps and time_steps[-1].alpha_s == 1 and time_steps[-1].unmask_prob == 1
