"""A benchmark of sampling that takes no time."""

from dataclasses import replace

from mdpipe.benchmarks.sampling import SamplingBenchmark

TINY = SamplingBenchmark(
    sampler="ancestral_stepwise",
    batch=2,
    length=7,
    vocab_size=11,
    steps=20,
    steady_steps=4,
    num_layers=2,
    num_heads=2,
    hidden_size=16,
    repeats=2,
    threads=1,
    device="cpu",
    dtype="float32",
    seed=0,
)


def tiny(sampler: str, **changes: object) -> SamplingBenchmark:
    return replace(TINY, sampler=sampler, **changes)
