"""Speed of the samplers that the stage `compare_samplers` compares, on the trained runs and this machine.

Not a stage: its times differ between machines and moments, and no artifact of the pipeline may. They are measured from
the command line, kept in git, and shown in the report next to the samplers' quality.
"""

from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

import polars as pl

from mdpipe.data.artifacts.files import atomic_write, write_json
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.diffusion.samplers.base import Sampler, build_sampler
from mdpipe.diffusion.token_sampling import TokenSampler
from mdpipe.networks.runtime import configure_runtime
from mdpipe.params import Params
from mdpipe.reporting.tables import SPEEDS
from mdpipe.stages.model_io import TrainedModel, load_model
from mdpipe.stages.sampling import all_masked, sample

DIGITS = 4
"""Significant digits of a speed in the file, more than its precision."""


def bench_samplers(params: Params, machine: Mapping[str, Any], threads: int, repeats: int, out: Path) -> None:
    """Write the speeds to `out`, and the machine and how they were measured to the same name in .json.

    Raises:
        ValueError: `out` does not end in .csv, or a model is missing or broken.
    """
    if out.suffix != ".csv":
        raise ValueError(f"--out {out} must end in .csv; the machine is described under the same name in .json")
    configure_runtime(threads)
    rows = [row for run in params.samplers.runs for row in _speeds(params, run, repeats)]
    atomic_write(out, pl.DataFrame(rows, schema=SPEEDS).write_csv().encode())
    write_json(out.with_suffix(".json"), {**machine, "repeats": repeats, "samples": params.samplers.count})


def _speeds(params: Params, run: str, repeats: int) -> list[dict[str, Any]]:
    trained = load_model(run)
    return [
        {
            "run": run,
            "sampler": config.kind,
            "steps": getattr(config, "steps", None),
            "num_parameters": trained.num_parameters,
            "tokens_per_second": _tokens_per_second(trained, build_sampler(config), params, repeats),
        }
        for config in params.samplers.samplers_for(params.runs[run].objective)
    ]


def _tokens_per_second(trained: TrainedModel, sampler: Sampler[Any], params: Params, repeats: int) -> float:
    """Return the best speed of several repetitions, after one that warms up, with the samples moved to the CPU."""
    tokens, seconds = all_masked(trained, params.samplers.count), []
    for _ in range(1 + repeats):
        start = perf_counter()
        sample(trained, sampler, tokens, CounterRNG(params.seed, "bench samplers"), token_sampler=TokenSampler())
        seconds.append(perf_counter() - start)
    return float(f"{tokens.numel() / min(seconds[1:]):.{DIGITS}g}")
