"""A benchmark of sampling that takes no time."""

from dataclasses import replace

from mdpipe.benchmarks.settings import SamplingSettings

TINY = SamplingSettings(
    batch=2, length=7, vocab_size=11, steps=20, steady_steps=4, num_layers=2, num_heads=2, hidden_size=16, repeats=2
)


def tiny(sampler: str, **changes: object) -> SamplingSettings:
    return replace(TINY, sampler=sampler, **changes)
