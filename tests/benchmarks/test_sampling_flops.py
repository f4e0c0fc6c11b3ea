"""FLOPs of sampling equal torch's count, and samplers cost what the benchmark assumes."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from mdpipe.benchmarks.sampling import (
    SCHEDULE,
    STEADY,
    build_grid_sampler,
    build_random_network,
    count_flops,
)
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.pipeline.sampling import CallCounter
from tests.benchmarks.configurations import tiny

STEPS = 5
FUSED_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda query, key, value, *_, **__: sdpa_flop_count(
        query, key, value
    )
}
"""Torch counts the fused kernels of a GPU, but not that of a CPU."""


@pytest.mark.parametrize("kind", ["ancestral_stepwise", "two_stage", "ancestral", "first_hitting"])
def test_flops_equal_torchs_count(kind):
    benchmark = tiny(kind)
    denoiser, tokens = CallCounter(build_random_network(benchmark)), torch.full((2, benchmark.length), 11)
    with FlopCounterMode(display=False, custom_mapping=FUSED_ATTENTION) as counter:
        build_grid_sampler(kind, STEPS)(denoiser, SCHEDULE, 11, tokens, CounterRNG(0, "test"), torch.arange(2))
    assert count_flops(denoiser, denoiser.denoiser, benchmark.length) == counter.get_total_flops() > 0


@pytest.mark.parametrize("kind", STEADY)
def test_all_steps_of_a_steady_sampler_run_the_whole_network(kind):
    """Therefore fewer steps can be timed and scaled."""
    benchmark = tiny(kind)
    denoiser, done = CallCounter(build_random_network(benchmark)), []
    tokens = torch.full((2, benchmark.length), 11)

    def note(*_):
        done.append((denoiser.calls, denoiser.rows, denoiser.positions))

    build_grid_sampler(kind, STEPS)(
        denoiser, SCHEDULE, 11, tokens, CounterRNG(0, "test"), torch.arange(2), on_step=note
    )
    assert done == [(step, 2 * step, 2 * benchmark.length * step) for step in range(1, STEPS + 1)]


def test_ancestral_sampling_runs_the_head_once_per_token():
    benchmark = tiny("ancestral")
    denoiser, tokens = CallCounter(build_random_network(benchmark)), torch.full((2, benchmark.length), 11)
    build_grid_sampler("ancestral", STEPS)(denoiser, SCHEDULE, 11, tokens, CounterRNG(0, "test"), torch.arange(2))
    assert denoiser.positions == tokens.numel()
    assert denoiser.calls <= STEPS and denoiser.rows <= 2 * STEPS


def test_random_network_has_a_head_that_is_not_zero():
    """Logits of about unit spread."""
    network = build_random_network(tiny("ancestral_stepwise", hidden_size=64, vocab_size=500))
    with torch.no_grad():
        logits = network.head(network(torch.arange(7)[None], torch.zeros(1)))
    assert 0.5 < logits.std() < 2
