"""The ancestral sampler against what can be computed: tokens per step, copied bits, and Algorithm 2 enumerated."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mdpipe.diffusion.grids import build_grid, cosine_grid, uniform_grid
from mdpipe.diffusion.noise import Noise
from mdpipe.diffusion.samplers.ancestral import ancestral
from mdpipe.diffusion.schedules import Cosine, Linear, Schedule
from tests.diffusion.chance import FALSE_ALARM, chi_square_chance
from tests.diffusion.tables import Tabular, contexts, random_table

MASK = 2
NOISE = Noise(0, "test")

settings = pytest.mark.parametrize(
    ("schedule", "grid"),
    [(Linear(), "uniform"), (Linear(), "cosine"), (Cosine(), "uniform"), (Linear(0.2), "uniform")],
    ids=["linear, uniform grid", "linear, cosine grid", "cosine, uniform grid", "a fifth left over"],
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


class Tempered(Tabular):
    """A table whose logits grow with time, so that it matters which time it is told."""

    def forward(self, tokens: Tensor, time: Tensor, condition: Tensor | None) -> Tensor:
        return super().forward(tokens, time, condition) * (0.5 + 2 * time[:, None, None])


def masks(batch: int, length: int) -> Tensor:
    return torch.full((batch, length), MASK)


def shares_per_step(schedule: Schedule, grid: Tensor) -> Tensor:
    """Chance that a token is revealed in each step, from time 1 on, and after the last: they add up to 1.

    All tokens are masked at time 1, though alpha(1) = epsilon, so each share is delta alpha / (1 - epsilon); what is
    still masked at time 0, a share epsilon / (1 - epsilon), is drawn at once.
    """
    alphas = schedule.alpha(grid).flip(0)
    return torch.cat([alphas.diff(), 1 - alphas[-1:]]) / (1 - alphas[0])


@settings
@pytest.mark.parametrize("steps", [1, 4, 16])
def test_two_copies_of_a_bit_disagree_as_often_as_one_step_reveals_both(schedule, grid, steps):
    """P = 0.5 sum (delta alpha / (1 - epsilon))^2, the tokens left over being the last step.

    40,000 samples, both assertions within 4.5 standard errors: false alarm 7e-6 each.
    """
    count, times = 40_000, build_grid(grid, steps)
    samples = ancestral(CopiedBit(), schedule, 2, masks(count, 2), times, NOISE, torch.arange(count))
    expected = 0.5 * (shares_per_step(schedule, times) ** 2).sum().item()
    disagreeing = (samples[:, 0] != samples[:, 1]).double().mean().item()
    assert abs(disagreeing - expected) < 4.5 * (expected * (1 - expected) / count) ** 0.5
    assert abs(samples[:, 0].double().mean() - 0.5) < 4.5 * (0.25 / count) ** 0.5


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


def test_independent_tokens_have_the_denoisers_probabilities_and_stay_independent():
    """Chi-square of 20,000 samples over the 27 sequences of three tokens."""
    count, chances = 20_000, torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    start = torch.full((count, 3), 3)
    samples = ancestral(Independent(0.2, 0.3, 0.5), Linear(), 3, start, cosine_grid(5), NOISE, torch.arange(count))
    counts = torch.bincount(samples @ torch.tensor([9, 3, 1]), minlength=27)
    assert chi_square_chance(counts, count * torch.einsum("a,b,c->abc", chances, chances, chances)) > FALSE_ALARM


@settings
def test_samples_follow_the_chain_of_algorithm_2(schedule, grid):
    """Chi-square of 20,000 samples over the 8 sequences of three bits, against the walk over all 27 contexts."""
    count, length, states = 20_000, 3, contexts(2, 3)
    denoiser, times = Tempered(random_table(2, length, 1).table.data), build_grid(grid, 3)
    alphas = schedule.alpha(times).flip(0)
    steps = [*zip(times.flip(0)[:-1], (alphas.diff() / (1 - alphas[:-1])).tolist(), strict=True), (times[0], 1.0)]
    chances = torch.zeros(len(states), dtype=torch.float64)
    chances[-1] = 1
    for time, share in steps:
        with torch.no_grad():
            mean = denoiser(states, time.expand(len(states)), None).softmax(dim=2)
        revealing = torch.cat([share * mean, torch.full((len(states), length, 1), 1 - share)], dim=2)
        staying = torch.nn.functional.one_hot(states, 3).double()
        kernel = torch.where((states == MASK)[..., None], revealing, staying)
        moves = torch.stack([kernel[:, n, states[:, n]] for n in range(length)]).prod(dim=0)
        chances = chances @ moves
    samples = ancestral(denoiser, schedule, 2, masks(count, length), times, NOISE, torch.arange(count))
    counts = torch.bincount(samples @ torch.tensor([9, 3, 1]), minlength=27)
    complete = (states != MASK).all(dim=1)
    assert counts[~complete].sum() == 0 and chances[~complete].sum() == 0
    assert chi_square_chance(counts[complete], count * chances[complete]) > FALSE_ALARM


@given(
    start=st.integers(0, 6).flatmap(
        lambda batch: st.lists(st.lists(st.integers(0, MASK), min_size=3, max_size=3), min_size=batch, max_size=batch)
    ),
    examples=st.integers(0, 2**40),
    cut=st.integers(0, 6),
    steps=st.integers(1, 5),
    way=st.sampled_from([(Linear(), "cosine"), (Cosine(0.2), "uniform")]),
)
def test_masks_are_filled_once_and_a_sample_is_the_same_in_any_batch(start, examples, cut, steps, way):
    """Known tokens stay from step to step, none is masked in the end, and nothing is written to what was given."""
    schedule, grid = way[0], build_grid(way[1], steps)
    tokens = torch.tensor(start, dtype=torch.int64).view(-1, 3)
    before, indices = tokens.clone(), examples + torch.arange(len(tokens))
    denoiser, trace = random_table(2, 3, 0), [before]

    def sample(part: slice, on_step=None) -> Tensor:
        return ancestral(denoiser, schedule, 2, tokens[part], grid, NOISE, indices[part], on_step)

    whole = sample(slice(None), lambda done, state: trace.append(state))
    assert torch.equal(tokens, before)
    assert len(trace) == steps + 1 and torch.equal(trace[-1], whole)
    for earlier, later in itertools.pairwise(trace):
        assert ((earlier == MASK) | (later == earlier)).all()
    assert ((whole >= 0) & (whole < MASK)).all()
    assert torch.equal(whole, torch.cat([sample(slice(cut)), sample(slice(cut, None))]))


def test_what_is_known_decides_what_is_not():
    start = masks(100, 2)
    start[:, 0] = torch.arange(100) % 2
    samples = ancestral(CopiedBit(), Linear(), 2, start, uniform_grid(4), NOISE, torch.arange(100))
    assert torch.equal(samples, start[:, :1].expand(-1, 2))


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
