"""The count of a sampler's operations is torch's, and samplers do what the comparison says of them."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mdpipe.benchmarks.sampling import (
    SCHEDULE,
    STEADY,
    CountingDenoiser,
    build_grid_sampler,
    build_random_network,
)
from mdpipe.diffusion.rng import CounterRNG
from tests.benchmarks.configurations import tiny

STEPS = 5


@pytest.mark.parametrize("kind", ["ancestral", "two_stage", "reveal_first", "first_hitting"])
def test_the_count_is_that_of_torch(kind):
    benchmark = tiny(kind)
    denoiser, tokens = CountingDenoiser(build_random_network(benchmark)), torch.full((2, benchmark.length), 11)
    with FlopCounterMode(display=False) as counter:
        build_grid_sampler(kind, STEPS)(denoiser, SCHEDULE, 11, tokens, CounterRNG(0, "test"), torch.arange(2))
    assert denoiser.flops(benchmark.length) == counter.get_total_flops() > 0


@pytest.mark.parametrize("kind", STEADY)
def test_all_steps_of_a_steady_sampler_run_the_whole_network(kind):
    """So a shorter walk stands for a longer one."""
    benchmark = tiny(kind)
    denoiser, done = CountingDenoiser(build_random_network(benchmark)), []
    tokens = torch.full((2, benchmark.length), 11)

    def note(*_):
        done.append((denoiser.calls, denoiser.rows, denoiser.positions))

    build_grid_sampler(kind, STEPS)(
        denoiser, SCHEDULE, 11, tokens, CounterRNG(0, "test"), torch.arange(2), on_step=note
    )
    assert done == [(step, 2 * step, 2 * benchmark.length * step) for step in range(1, STEPS + 1)]


def test_planned_sampling_runs_the_head_once_a_token_and_the_trunk_no_more_often():
    benchmark = tiny("reveal_first")
    denoiser, tokens = CountingDenoiser(build_random_network(benchmark)), torch.full((2, benchmark.length), 11)
    build_grid_sampler("reveal_first", STEPS)(denoiser, SCHEDULE, 11, tokens, CounterRNG(0, "test"), torch.arange(2))
    assert denoiser.positions == tokens.numel()
    assert denoiser.calls <= STEPS and denoiser.rows <= 2 * STEPS


def test_the_head_is_not_the_zero_that_a_fresh_network_has():
    """Logits of about unit spread."""
    network = build_random_network(tiny("ancestral", width=64, vocabulary=500))
    with torch.no_grad():
        logits = network.head(network(torch.arange(7)[None], torch.zeros(1)))
    assert 0.5 < logits.std() < 2
