"""Ancestral sampling by plan: the network calls that it saves. Other tests cover its distribution."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mdpipe.diffusion import denoiser as denoiser_module
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.diffusion.samplers.ancestral import Ancestral
from mdpipe.diffusion.schedules.base import Cosine, Linear, Schedule, uniform_grid
from mdpipe.params.diffusion import LinearConfig
from mdpipe.params.sampling import AncestralConfig
from tests.diffusion.samplers.denoisers import RNG, CopiedBit, Counted, Independent, Mixing, all_masks

schedules = pytest.mark.parametrize(
    "schedule", [Linear(), Cosine(), Linear(LinearConfig(epsilon=0.2))], ids=["linear", "cosine", "epsilon"]
)


def unmask_probs(schedule: Schedule, steps: int) -> Tensor:
    """Return the probability that a token is unmasked in each step; the last is for tokens masked at time 0."""
    alphas = schedule.alpha(uniform_grid(steps)).flip(0)
    return torch.cat([alphas.diff(), 1 - alphas[-1:]]) / (1 - alphas[0])


@schedules
def test_body_runs_on_rows_that_unmask_something(schedule):
    """Expected rows B sum_i [1 - (1 - delta_i)^L], within 4.5 standard errors: false alarm 7e-6.

    The number of different steps of L tokens has the variance of a sum of indicators; the pairs' covariance is that
    of both steps staying empty.
    """
    batch, length, steps = 4000, 8, 6
    denoiser, delta = Counted(Independent(0.5, 0.5)), unmask_probs(schedule, steps)
    Ancestral(AncestralConfig(steps=steps, time_grid="uniform"))(
        denoiser, schedule, 2, all_masks(batch, length), RNG, torch.arange(batch)
    )
    empty = (1 - delta) ** length
    both = (1 - delta[:, None] - delta).clamp(min=0) ** length
    covariance = both - torch.outer(empty, empty)
    covariance.diagonal().copy_(empty * (1 - empty))
    expected, error = batch * (1 - empty).sum(), (batch * covariance.sum()) ** 0.5
    assert (sum(denoiser.body_rows) - expected).abs() < 4.5 * error


@schedules
def test_number_of_calls_is_that_of_a_network_without_time(schedule):
    """E = sum_i [1 - (1 - delta_i)^(B L)] calls, over 400 batches, within 4.5 of their own standard errors."""
    batch, length, steps, batches = 2, 3, 6, 400
    calls = torch.zeros(batches, dtype=torch.float64)
    for index in range(batches):
        denoiser = Counted(Independent(0.5, 0.5))
        examples = torch.arange(batch) + batch * index
        Ancestral(AncestralConfig(steps=steps, time_grid="uniform"))(
            denoiser, schedule, 2, all_masks(batch, length), RNG, examples
        )
        calls[index] = len(denoiser.body_rows)
    expected = (1 - (1 - unmask_probs(schedule, steps)) ** (batch * length)).sum()
    assert (calls.mean() - expected).abs() < 4.5 * calls.std() / batches**0.5


@given(
    rows=st.lists(st.lists(st.integers(0, 2), min_size=4, max_size=4), min_size=1, max_size=6), steps=st.integers(1, 9)
)
def test_head_runs_per_sampled_token_and_body_per_active_row(rows, steps):
    denoiser, tokens = Counted(Independent(0.5, 0.5)), torch.tensor(rows)
    trace = [tokens]
    Ancestral(AncestralConfig(steps=steps, time_grid="uniform"))(
        denoiser,
        Linear(),
        2,
        tokens,
        RNG,
        torch.arange(len(rows)),
        on_step=lambda _done, _of, state: trace.append(state),
    )
    changes = [(later != earlier) for earlier, later in itertools.pairwise(trace) if (later != earlier).any()]
    assert denoiser.body_rows == [int(change.any(dim=1).sum()) for change in changes]
    assert denoiser.head_rows == [int(change.sum()) for change in changes]


def test_a_step_that_unmasks_everything_samples_in_chunks(monkeypatch):
    """At most 10 tokens of the 60 at a time, and the samples are the same."""
    start, examples = all_masks(10, 6, 3), torch.arange(10)
    whole = Ancestral(AncestralConfig(steps=1, time_grid="uniform"))(
        Mixing(3, False), Linear(), 3, start, RNG, examples
    )
    monkeypatch.setattr(denoiser_module, "MAX_PROBABILITIES", 30)
    denoiser = Counted(Mixing(3, False))
    assert torch.equal(
        Ancestral(AncestralConfig(steps=1, time_grid="uniform"))(denoiser, Linear(), 3, start, RNG, examples), whole
    )
    assert max(denoiser.head_rows) <= 10 and sum(denoiser.head_rows) == 60


def test_a_step_waits_for_no_result_of_another(monkeypatch):
    """Nothing is read back on the host after the plan: no item(), nonzero() or boolean index in the steps."""
    denoiser, read = CopiedBit(), []

    def spy(name: str):
        original = getattr(Tensor, name)

        def reading(self: Tensor, *arguments):
            if steps_begun:
                read.append(name)
            return original(self, *arguments)

        return reading

    steps_begun: list[int] = []
    for name in ("item", "tolist", "nonzero", "__bool__", "__int__", "__float__", "masked_scatter", "cpu"):
        monkeypatch.setattr(Tensor, name, spy(name))
    Ancestral(AncestralConfig(steps=8, time_grid="uniform"))(
        denoiser,
        Linear(),
        2,
        all_masks(50, 2),
        CounterRNG(0, "test"),
        torch.arange(50),
        on_step=lambda done, _of, _tokens: steps_begun.append(done),
    )
    assert len(steps_begun) == 9 and read == []


def test_nothing_unknown_needs_no_network_call():
    denoiser, start = Counted(CopiedBit()), torch.zeros(3, 2, dtype=torch.int64)
    assert torch.equal(
        Ancestral(AncestralConfig(steps=4, time_grid="uniform"))(denoiser, Linear(), 2, start, RNG, torch.arange(3)),
        start,
    )
    assert denoiser.body_rows == []


def test_what_is_known_decides_what_is_not():
    start = all_masks(100, 2)
    start[:, 0] = torch.arange(100) % 2
    samples = Ancestral(AncestralConfig(steps=4, time_grid="uniform"))(
        CopiedBit(), Linear(), 2, start, RNG, torch.arange(100)
    )
    assert torch.equal(samples, start[:, :1].expand(-1, 2))
