"""The ancestral sampler against what can be computed: copied bits, tokens per step, batches and known positions."""

import pytest
import torch
from torch import Tensor

from mdpipe.diffusion.grids import build_grid, cosine_grid, uniform_grid
from mdpipe.diffusion.noise import Noise
from mdpipe.diffusion.samplers.ancestral import ancestral
from mdpipe.diffusion.schedules import Cosine, Linear

MASK = 2
NOISE = Noise(0, "test")

settings = pytest.mark.parametrize(
    ("schedule", "grid"),
    [(Linear(), "uniform"), (Linear(), "cosine"), (Cosine(), "uniform")],
    ids=["linear, uniform grid", "linear, cosine grid", "cosine, uniform grid"],
)


class CopiedBit:
    """Exact conditionals of two tokens that are one fair bit twice: log-probabilities (B, 2, 2)."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.head_rows = 0

    def __call__(self, tokens: Tensor, time: Tensor, condition: Tensor | None) -> Tensor:
        self.times.append(time.unique().item())
        other = tokens.flip(1)
        chances = torch.stack([other == 0, other == 1], dim=-1).double()
        return torch.where((other == MASK)[..., None], 0.5, chances).log()

    def head(self, hidden: Tensor) -> Tensor:
        self.head_rows += len(hidden)
        return hidden


class Independent:
    """Every token has these probabilities whatever the others are, so only the walk itself matters."""

    def __init__(self, *chances: float) -> None:
        self.logits = torch.tensor(chances, dtype=torch.float64).log()

    def __call__(self, tokens: Tensor, time: Tensor, condition: Tensor | None) -> Tensor:
        return self.logits.expand(*tokens.shape, -1)

    def head(self, hidden: Tensor) -> Tensor:
        return hidden


def masks(batch: int, length: int) -> Tensor:
    return torch.full((batch, length), MASK)


def shares_per_step(schedule, grid: Tensor) -> Tensor:
    """Chance that a token is revealed in each step, from time 1 on, and after the last: they add up to 1."""
    alphas = schedule.alpha(grid).flip(0)
    return torch.cat([alphas.diff(), 1 - alphas[-1:]]) / (1 - alphas[0])


@settings
@pytest.mark.parametrize("steps", [1, 4, 16])
def test_two_copies_of_a_bit_disagree_as_often_as_one_step_reveals_both(schedule, grid, steps):
    """P = 0.5 sum (delta alpha)^2; 40,000 samples, within 4 binomial standard errors (false alarm 6e-5)."""
    count, times = 40_000, build_grid(grid, steps)
    samples = ancestral(CopiedBit(), schedule, 2, masks(count, 2), times, NOISE, torch.arange(count))
    expected = 0.5 * (shares_per_step(schedule, times) ** 2).sum().item()
    disagreeing = (samples[:, 0] != samples[:, 1]).double().mean().item()
    assert abs(disagreeing - expected) < 4 * (expected * (1 - expected) / count) ** 0.5
    assert abs(samples.double().mean() - 0.5) < 4 * (0.5 / count) ** 0.5


@settings
def test_a_step_reveals_n_times_delta_alpha_tokens(schedule, grid):
    """Binomial counts of 64 x 1,000 tokens in 8 steps, each within 5 standard errors (false alarm 5e-6 a test)."""
    batch, length, steps = 64, 1000, 8
    left: list[int] = [batch * length]
    ancestral(
        Independent(0.5, 0.5),
        schedule,
        2,
        masks(batch, length),
        build_grid(grid, steps),
        NOISE,
        torch.arange(batch),
        on_step=lambda _, tokens: left.append(int((tokens == MASK).sum())),
    )
    revealed = -torch.tensor(left, dtype=torch.float64).diff()
    shares = shares_per_step(schedule, build_grid(grid, steps))
    shares = torch.cat([shares[: steps - 1], shares[steps - 1 :].sum(dim=0, keepdim=True)])
    errors = (batch * length * shares * (1 - shares)) ** 0.5
    assert ((revealed - batch * length * shares).abs() < 5 * errors).all()
    assert left[-1] == 0


def test_the_two_equivalent_ways_of_sampling_draw_the_same_samples():
    """Linear schedule on the cosine grid, cosine schedule on the uniform grid: the same noise, the same reveals."""
    start, examples = masks(64, 50), torch.arange(64)
    first = ancestral(Independent(0.3, 0.7), Linear(), 2, start, cosine_grid(20), NOISE, examples)
    second = ancestral(Independent(0.3, 0.7), Cosine(), 2, start, uniform_grid(20), NOISE, examples)
    assert torch.equal(first, second)


def test_tokens_have_the_probabilities_of_the_denoiser():
    samples = ancestral(Independent(0.9, 0.1), Linear(), 2, masks(200, 200), uniform_grid(5), NOISE, torch.arange(200))
    assert abs(samples.double().mean() - 0.1) < 5 * (0.09 / samples.numel()) ** 0.5


def test_known_positions_stay():
    start = masks(100, 2)
    start[:, 0] = torch.arange(100) % 2
    samples = ancestral(CopiedBit(), Linear(), 2, start, uniform_grid(4), NOISE, torch.arange(100))
    assert torch.equal(samples[:, 0], start[:, 0])
    assert torch.equal(samples[:, 1], start[:, 0])
    assert (start[:, 1] == MASK).all(), "the tokens that were given are not written to"


def test_a_sample_is_the_same_in_any_batch():
    start, examples = masks(10, 2), torch.arange(10)
    whole = ancestral(CopiedBit(), Linear(), 2, start, uniform_grid(4), NOISE, examples)
    parts = [
        ancestral(CopiedBit(), Linear(), 2, start[part], uniform_grid(4), NOISE, examples[part])
        for part in (slice(0, 1), slice(1, 7), slice(7, 10))
    ]
    assert torch.equal(whole, torch.cat(parts))


def test_the_head_runs_once_for_every_token_drawn():
    denoiser, start = CopiedBit(), masks(100, 2)
    start[:30, 0] = 1
    ancestral(denoiser, Linear(), 2, start, uniform_grid(4), NOISE, torch.arange(100))
    assert denoiser.head_rows == 170


def test_the_denoiser_is_told_the_time_that_a_step_begins_at_and_0_for_what_is_left():
    """At epsilon = 0.2 a fifth of the tokens is left over."""
    denoiser, steps = CopiedBit(), []
    ancestral(
        denoiser,
        Linear(0.2),
        2,
        masks(1000, 2),
        uniform_grid(4),
        NOISE,
        torch.arange(1000),
        on_step=lambda done, tokens: steps.append((done, bool((tokens == MASK).any()))),
    )
    assert denoiser.times == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert steps == [(1, True), (2, True), (3, True), (4, False)]


def test_nothing_unknown_needs_no_network_call():
    denoiser, start = CopiedBit(), torch.zeros(3, 2, dtype=torch.int64)
    assert torch.equal(ancestral(denoiser, Linear(), 2, start, uniform_grid(4), NOISE, torch.arange(3)), start)
    assert denoiser.times == []
