"""First hitting: one token per call, at the time at which infinitely many steps would unmask it."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mdpipe.diffusion.samplers.baselines import FirstHitting
from mdpipe.diffusion.schedules.base import Cosine, Linear
from mdpipe.params.diffusion import CosineConfig, LinearConfig
from tests.diffusion.samplers.denoisers import RNG, CopiedBit, Counted, Independent, Mixing, all_masks
from tests.diffusion.statistical_tests import FALSE_ALARM, chi_square_chance
from tests.diffusion.tables import exact_table, markov_chain, random_table

MASK = 2


@given(rows=st.lists(st.lists(st.integers(0, MASK), min_size=4, max_size=4), min_size=1, max_size=6))
def test_one_token_per_row_and_call(rows):
    denoiser, tokens, trace = Counted(Mixing(2, False)), torch.tensor(rows), []
    FirstHitting()(
        denoiser,
        Linear(),
        2,
        tokens,
        RNG,
        torch.arange(len(rows)),
        on_step=lambda _done, _of, state: trace.append(state),
    )
    unknown = (tokens == MASK).sum(dim=1)
    assert denoiser.body_rows == [int((unknown > call).sum()) for call in range(int(unknown.max()))]
    for done, state in enumerate(trace, start=1):
        assert torch.equal((state == MASK).sum(dim=1), (unknown - done).clamp(min=0))


@pytest.mark.parametrize(
    "schedule", [Linear(LinearConfig(epsilon=0.0)), Cosine(CosineConfig(epsilon=0.0))], ids=["linear", "cosine"]
)
def test_mask_probs_at_hits_are_uniform_order_statistics(schedule):
    """Of n uniforms u_1 > u_2 > ..., (u_k / u_(k-1))^(n-k+1) are uniform and independent: chi-square of 5,000 rows."""
    count, length, denoiser = 5000, 3, Mixing(2, False)
    FirstHitting()(denoiser, schedule, 2, all_masks(count, length), RNG, torch.arange(count))
    mask_probs = torch.stack([torch.ones(count), *(1 - schedule.alpha(time) for time in denoiser.times)])
    u = (mask_probs[1:] / mask_probs[:-1]) ** torch.arange(length, 0, -1)[:, None]
    cells = (4 * u).long().clamp(max=3)
    counts = torch.bincount(cells[0] * 16 + cells[1] * 4 + cells[2], minlength=64)
    assert chi_square_chance(counts, torch.full((64,), count / 64)) > FALSE_ALARM


@pytest.mark.parametrize(
    "schedule", [Linear(LinearConfig(epsilon=0.2)), Cosine(CosineConfig(epsilon=0.2))], ids=["linear", "cosine"]
)
def test_tokens_below_epsilon_are_sampled_at_time_0(schedule):
    """A fraction (1 - alpha(0)) / (1 - alpha(1)) = 1/4 of 15,000, within 4.5 standard errors: false alarm 7e-6."""
    count, length, denoiser = 5000, 3, Mixing(2, False)
    FirstHitting()(denoiser, schedule, 2, all_masks(count, length), RNG, torch.arange(count))
    find_leftovers = (torch.cat(denoiser.times) < 1e-12).sum().item()
    assert abs(find_leftovers - 3750) < 4.5 * (15_000 * 0.25 * 0.75) ** 0.5


def test_every_order_of_positions_is_as_likely():
    """Chi-square over the 24 orders of four tokens."""
    count, length, trace = 12_000, 4, []
    FirstHitting()(
        Independent(0.5, 0.5),
        Cosine(),
        2,
        all_masks(count, length),
        RNG,
        torch.arange(count),
        on_step=lambda _done, _of, state: trace.append(state == MASK),
    )
    when = torch.stack(trace).sum(dim=0)
    counts = torch.bincount(when @ torch.tensor([64, 16, 4, 1]), minlength=256)
    permutations = [
        sum(4**place * step for place, step in enumerate(order)) for order in itertools.permutations(range(4))
    ]
    assert counts.sum() == counts[permutations].sum() == count
    assert chi_square_chance(counts[permutations], torch.full((24,), count / 24)) > FALSE_ALARM


def test_samples_have_the_mean_probability_over_all_orders():
    """Chi-square of 20,000 samples over the 8 sequences of three bits, from conditionals that fit no distribution."""
    count, length, denoiser = 20_000, 3, random_table(2, 3, 1)
    chances = torch.zeros(2, 2, 2, dtype=torch.float64)
    for x in itertools.product(range(2), repeat=length):
        for order in itertools.permutations(range(length)):
            chances[x] += probability(denoiser, torch.tensor(x), order) / 6
    samples = FirstHitting()(denoiser, Linear(), 2, all_masks(count, length), RNG, torch.arange(count))
    counts = torch.bincount(samples @ torch.tensor([4, 2, 1]), minlength=8)
    assert chi_square_chance(counts, count * chances) > FALSE_ALARM


@torch.no_grad()
def probability(denoiser, x: Tensor, order: tuple[int, ...]) -> float:
    tokens, product = torch.full_like(x, MASK), 1.0
    for place in order:
        logits = denoiser.head(denoiser(tokens[None], torch.zeros(1), None))
        product *= logits[0, place].softmax(dim=0)[x[place]].item()
        tokens[place] = x[place]
    return product


def test_with_exact_conditionals_samples_are_exact():
    """Two copies of a bit never disagree; a Markov chain, to chi-square over its 16 sequences."""
    pairs = FirstHitting()(CopiedBit(), Linear(), 2, all_masks(1000, 2), RNG, torch.arange(1000))
    assert torch.equal(pairs[:, 0], pairs[:, 1])
    count, joint = 20_000, markov_chain()
    samples = FirstHitting()(exact_table(joint), Linear(), 2, all_masks(count, 4), RNG, torch.arange(count))
    counts = torch.bincount(samples @ torch.tensor([8, 4, 2, 1]), minlength=16)
    assert chi_square_chance(counts, count * joint) > FALSE_ALARM
