"""MaskGIT's sampler: how many tokens it keeps, and which."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from mdpipe.diffusion.samplers.baselines import MIN_UNIFORM, MaskGIT, gumbel
from mdpipe.diffusion.schedules.base import TIME_GRIDS, Cosine, Linear
from mdpipe.params.diffusion import LinearConfig
from mdpipe.params.sampling import MaskGITSamplerConfig
from tests.diffusion.samplers.denoisers import RNG, Independent, all_masks
from tests.diffusion.statistical_tests import FALSE_ALARM, chi_square_chance

MASK = 2


class IndependentBits:
    """Independent bits, each with its own probability of 1."""

    def __init__(self, *chances: float) -> None:
        ones = torch.tensor(chances, dtype=torch.float64)
        self.p = torch.stack([1 - ones, ones], dim=1)

    def __call__(self, tokens: Tensor, time: Tensor, class_labels: Tensor | None) -> Tensor:
        return self.p.log().expand(len(tokens), -1, -1)

    def head(self, hidden: Tensor) -> Tensor:
        return hidden


@pytest.mark.parametrize("time_grid", ["uniform", "cosine"])
@pytest.mark.parametrize(
    "schedule", [Linear(), Cosine(), Linear(LinearConfig(epsilon=0.2))], ids=["linear", "cosine", "epsilon"]
)
def test_mask_count_follows_the_schedule_and_ends_at_zero(schedule, time_grid):
    """Rows with 0 to 8 unknown tokens of 8."""
    start, trace = all_masks(9, 8), []
    for row in range(9):
        start[row, :row] = 1
    MaskGIT(MaskGITSamplerConfig(steps=5, time_grid=time_grid))(
        Independent(0.4, 0.6),
        schedule,
        2,
        start,
        RNG,
        torch.arange(9),
        on_step=lambda _done, _of, state: trace.append((state == MASK).sum(dim=1).tolist()),
    )
    alphas = schedule.alpha(TIME_GRIDS[time_grid](5)).flip(0)[1:].tolist()
    expected = [[math.ceil((8 - row) * (1 - alpha)) for row in range(9)] for alpha in alphas[:-1]]
    assert trace == [*expected, [0] * 9]


def test_without_noise_the_more_confident_token_stays():
    """Chi-square of 20,000 pairs, against both draws of the first step enumerated."""
    count, denoiser = 20_000, IndependentBits(0.3, 0.8)
    first, second = denoiser.p
    chances = torch.zeros(2, 2, dtype=torch.float64)
    for a, b, again in itertools.product(range(2), repeat=3):
        if first[a] >= second[b]:
            chances[a, again] += first[a] * second[b] * second[again]
        else:
            chances[again, b] += first[a] * second[b] * first[again]
    sampler = MaskGIT(MaskGITSamplerConfig(steps=2, time_grid="uniform", noise_scale=0))
    samples = sampler(denoiser, Linear(LinearConfig(epsilon=0.0)), 2, all_masks(count, 2), RNG, torch.arange(count))
    counts = torch.bincount(samples @ torch.tensor([2, 1]), minlength=4)
    assert chi_square_chance(counts, count * chances) > FALSE_ALARM


@pytest.mark.parametrize("noise_scale", [0.5, 4.5])
def test_noise_makes_the_first_of_two_tokens_a_logistic_choice(noise_scale):
    """Two Gumbel numbers differ by a logistic one, scaled by the half of the steps that remains: chi-square."""
    count, denoiser, trace = 20_000, IndependentBits(0.3, 0.8), []
    first, second = denoiser.p
    chances = torch.zeros(3, 3, dtype=torch.float64)
    for a, b in itertools.product(range(2), repeat=2):
        first_stays = torch.sigmoid((first[a].log() - second[b].log()) / (noise_scale / 2))
        chances[a, MASK] += first[a] * second[b] * first_stays
        chances[MASK, b] += first[a] * second[b] * (1 - first_stays)
    MaskGIT(MaskGITSamplerConfig(steps=2, time_grid="uniform", noise_scale=noise_scale))(
        denoiser,
        Linear(LinearConfig(epsilon=0.0)),
        2,
        all_masks(count, 2),
        RNG,
        torch.arange(count),
        on_step=lambda _done, _of, state: trace.append(state),
    )
    counts, possible = torch.bincount(trace[0] @ torch.tensor([3, 1]), minlength=9), chances.flatten() > 0
    assert counts[possible].sum() == count
    assert chi_square_chance(counts[possible], count * chances.flatten()[possible]) > FALSE_ALARM


def test_with_much_noise_tokens_are_unmasked_in_random_order():
    """Which two of four are unmasked first: chi-square over the 6 pairs of 6,000 rows, whatever the confidence."""
    count, trace = 6000, []
    MaskGIT(MaskGITSamplerConfig(steps=2, time_grid="uniform", noise_scale=1e9))(
        IndependentBits(0.01, 0.2, 0.5, 0.9),
        Linear(LinearConfig(epsilon=0.0)),
        2,
        all_masks(count, 4),
        RNG,
        torch.arange(count),
        on_step=lambda _done, _of, state: trace.append(state != MASK),
    )
    counts = torch.bincount(trace[0].long() @ torch.tensor([8, 4, 2, 1]), minlength=16)
    pairs = [8 * a + 4 * b + 2 * c + d for a, b, c, d in itertools.product(range(2), repeat=4) if a + b + c + d == 2]
    assert counts[pairs].sum() == count
    assert chi_square_chance(counts[pairs], torch.full((6,), count / 6)) > FALSE_ALARM


def test_equal_confidence_is_unmasked_from_left_to_right():
    """A sequence long enough for a sort that is not stable to show."""
    places, trace = torch.arange(400), []
    MaskGIT(MaskGITSamplerConfig(steps=4, time_grid="uniform", noise_scale=0))(
        Independent(0.5, 0.5),
        Linear(LinearConfig(epsilon=0.0)),
        2,
        all_masks(1, 400),
        RNG,
        torch.arange(1),
        on_step=lambda _done, _of, state: trace.append(state[0] != MASK),
    )
    for done, is_unmasked in enumerate(trace, start=1):
        assert torch.equal(is_unmasked, places < 100 * done)


def test_gumbel_numbers_are_finite_and_gumbel_distributed():
    """P(G < g) = exp(-exp(-g)), so that the uniform comes back."""
    u = torch.tensor([0.0, MIN_UNIFORM, 0.1, 0.5, 1 - 2.0**-53], dtype=torch.float64)
    numbers = gumbel(u)
    assert numbers.isfinite().all()
    assert torch.allclose(torch.exp(-torch.exp(-numbers)), u, rtol=1e-9, atol=1e-15)
