"""Samplers against the enumerated chains that they follow, by chi-square over all sequences of three bits."""

import itertools

import pytest
import torch
from torch import Tensor

from mdpipe.diffusion.schedules.base import TIME_GRIDS, Cosine, Linear
from mdpipe.params.diffusion import LinearConfig
from tests.diffusion.samplers.chains import counts_of, levels, move, outcome
from tests.diffusion.samplers.denoisers import RNG, Mixing, Tempered, all_masks, sampler_of
from tests.diffusion.statistical_tests import FALSE_ALARM, chi_square_chance
from tests.diffusion.tables import Tabular, copied_bit, exact_table, random_table

MASK = 2
COUNT = 20_000
STEPS = 3

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
starts = pytest.mark.parametrize("start", [[MASK, MASK, MASK], [MASK, 1, MASK]], ids=["unknown", "infilling"])


def table() -> Tabular:
    return Tempered(random_table(2, 3, 1).table.data)


def agree(samples: Tensor, chances: Tensor) -> bool:
    counts, possible = counts_of(samples, MASK), chances > 0
    assert counts[~possible].sum() == 0
    return chi_square_chance(counts[possible], len(samples) * chances[possible]) > FALSE_ALARM


def samples_of(sampler, denoiser, schedule, start: list[int]) -> Tensor:
    tokens = torch.tensor(start).expand(COUNT, -1)
    return sampler(denoiser, schedule, MASK, tokens, RNG, torch.arange(COUNT))


@ways
@starts
@pytest.mark.parametrize("kind", ["ancestral_stepwise", "two_stage", "ancestral"])
def test_three_ways_to_draw_follow_algorithm_2(kind, schedule, time_grid, start):
    begin, denoiser = torch.tensor(start), table()
    moves = [
        move(denoiser, t, (alpha_s - alpha_t) / (1 - alpha_t), 0, begin)
        for t, alpha_t, alpha_s in levels(schedule, TIME_GRIDS[time_grid](STEPS))
    ]
    assert agree(samples_of(sampler_of(kind, STEPS, time_grid), denoiser, schedule, start), outcome(begin, moves, MASK))


@ways
@starts
@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_remdm_remasks_and_compensates_for_it(schedule, time_grid, start, eta):
    begin, denoiser, moves = torch.tensor(start), table(), []
    for t, alpha_t, alpha_s in levels(schedule, TIME_GRIDS[time_grid](STEPS)):
        sigma = eta * min(1, (1 - alpha_s) / alpha_t)
        moves.append(move(denoiser, t, (alpha_s - (1 - sigma) * alpha_t) / (1 - alpha_t), sigma, begin))
    samples = samples_of(sampler_of("remdm", STEPS, time_grid, eta=eta), denoiser, schedule, start)
    assert agree(samples, outcome(begin, moves, MASK))


def corrected(denoiser: Tabular, schedule, time_grid: str, steps: int, correctors: int, start: Tensor) -> Tensor:
    moves = []
    for t, alpha_t, alpha_s in levels(schedule, TIME_GRIDS[time_grid](steps)):
        back = move(denoiser, t, (alpha_s - alpha_t) / (1 - alpha_t), 0, start)
        forth = move(denoiser, t, 0.0, 1 - alpha_t / alpha_s, start)
        moves += [back, *[forth, back] * correctors]
    return outcome(start, moves, MASK)


@ways
@starts
def test_a_corrector_goes_forward_and_comes_back(schedule, time_grid, start):
    sampler, denoiser = sampler_of("predictor_corrector", STEPS, time_grid, num_corrector_steps=2), table()
    chances = corrected(denoiser, schedule, time_grid, STEPS, 2, torch.tensor(start))
    assert agree(samples_of(sampler, denoiser, schedule, start), chances)


@pytest.mark.parametrize("steps", [4, 16])
def test_correctors_reduce_the_error_of_parallel_unmasking(steps):
    """With more rounds, fewer copies of a bit disagree; enumerated. The distribution stays symmetric."""
    denoiser, start = exact_table(copied_bit()), torch.tensor([MASK, MASK])
    chances = [
        corrected(denoiser, Linear(), "uniform", steps, rounds, start).view(3, 3)[:2, :2] for rounds in (0, 1, 4)
    ]
    disagreeing = [float(joint[0, 1] + joint[1, 0]) for joint in chances]
    assert disagreeing[0] > 1.3 * disagreeing[1] > 1.3 * disagreeing[2]
    for joint in chances:
        assert torch.allclose(joint, joint.flip(0, 1))


class Powers:
    """alpha_i(t) = 1 - (1 - epsilon) t^w_i, the schedule of GenMD4."""

    def __init__(self, *exponents: float, epsilon: float = 1e-4) -> None:
        self.w = torch.tensor(exponents, dtype=torch.float64)
        self.epsilon = epsilon

    def alpha(self, time: Tensor) -> Tensor:
        return 1 - (1 - self.epsilon) * time[..., None] ** self.w


@starts
@pytest.mark.parametrize("steps", [2, 3])
@pytest.mark.parametrize("exponents", [(1.0, 1.0), (0.5, 2.0), (0.5, 60.0)], ids=["equal", "unequal", "vanishing"])
def test_genmd4_sampling_unmasks_each_token_by_its_schedule(start, steps, exponents):
    """From (s/t)^w, not from alphas: P(x_s = i) = (1 - (s/t)^w_i) mu_i.

    (1/2)^60 is below the resolution of alpha near 1, so alpha rounds to 1 while masks are left.
    """
    begin, denoiser, schedule = torch.tensor(start), table(), Powers(*exponents)
    times = TIME_GRIDS["cosine"](steps).flip(0)
    moves = [move(denoiser, float(t), 1 - (s / t) ** schedule.w, 0, begin) for t, s in itertools.pairwise(times)]
    samples = samples_of(sampler_of("genmd4_ancestral", steps, "cosine"), denoiser, schedule, start)
    assert agree(samples, outcome(begin, moves, MASK))


@ways
@pytest.mark.parametrize(
    ("kind", "settings"),
    [("remdm", {"eta": 0}), ("predictor_corrector", {"num_corrector_steps": 0}), ("genmd4_ancestral", {})],
)
def test_what_adds_nothing_draws_the_samples_of_algorithm_2(kind, settings, schedule, time_grid):
    """Token by token, from the same random numbers."""
    plain = samples_of(sampler_of("ancestral_stepwise", STEPS, time_grid), table(), schedule, [MASK, 1, MASK])
    assert torch.equal(
        samples_of(sampler_of(kind, STEPS, time_grid, **settings), table(), schedule, [MASK, 1, MASK]), plain
    )


def test_genmd4_sampling_calls_the_network_once_per_step():
    denoiser = Mixing(2, False)
    sampler_of("genmd4_ancestral", 5)(denoiser, Powers(0.5, 2.0), 2, all_masks(4, 3), RNG, torch.arange(4))
    assert torch.cat(denoiser.times).unique().tolist() == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert len(denoiser.times) == 5
