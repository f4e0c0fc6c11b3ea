"""A benchmark that takes no time."""

from dataclasses import replace

from mdpipe.benchmarks.sampling import SamplingBenchmark

TINY = SamplingBenchmark(
    sampler="ancestral",
    batch=2,
    length=7,
    vocabulary=11,
    steps=20,
    steady_steps=4,
    layers=2,
    heads=2,
    width=16,
    repeats=2,
    threads=1,
    device="cpu",
    dtype="float32",
    seed=0,
)


def tiny(sampler: str, **changes: object) -> SamplingBenchmark:
    return replace(TINY, sampler=sampler, **changes)
