"""A prepared run on a GPU: correctness and speed of training, speed of samplers, and the likelihood after training.

    PYTHONPATH=src python -m mdpipe.benchmarks.gpu --out DIR

It needs a checkout, torch, numpy, pydantic, PyYAML, safetensors and rich. Every part runs in a separate process, within
a time limit, and writes its file after every measurement, so that a part that fails or hangs costs no result of
another. `--tiny` rehearses all of it on a CPU, except code generation.
"""

import argparse
import gc
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from mdpipe.benchmarks import gpu_checks, sampling, training
from mdpipe.benchmarks import gpu_measurements as measurements
from mdpipe.benchmarks.runner import (
    Result,
    describe_error,
    describe_machine,
    format_machine,
    stream_alone,
    to_json,
    to_table,
)
from mdpipe.console import configure_logging
from mdpipe.data.artifacts.files import atomic_write
from mdpipe.networks.runtime import compute_device, configure_runtime
from mdpipe.params import EstimatorConfig
from mdpipe.reporting.markdown import Columns
from mdpipe.training.performance import find_compiler_problem

logger = logging.getLogger("mdpipe.benchmarks.gpu")

BUDGET = 520.0
"""Seconds: under nine minutes, so that a job of ten minutes has time to start and to copy files."""
GRACE = 3.0
"""Seconds between the time when a part should end by itself and when it is killed."""
REHEARSAL_BACKEND = "aot_eager_decomp_partition"
"""Compiler of a rehearsal on a CPU. It traces, decomposes and partitions as the default one does, then runs the graphs
eagerly: to generate and compile C++ takes many times longer, and a GPU runs other code."""


@dataclass(frozen=True)
class Job:
    """The conditions of a part: the device, and the time when it should end by itself."""

    device: torch.device
    end: float

    @cached_property
    def compiler_problem(self) -> str:
        """Return why torch.compile does not work on the device, or an empty string."""
        return find_compiler_problem(self.device)

    def attempt(
        self, labels: Result, measure: Callable[[], Result], *, seconds: float = 0, compiles: bool = False
    ) -> Result:
        """Return the labels with the columns that `measure` returns, or with the reason why there are none.

        Args:
            labels: Columns that identify the row.
            measure: Returns the columns of the measurement. If a kernel has no deterministic form, it is called again
                without that demand, and the row has the column `not_deterministic`.
            seconds: Its approximate duration; it is skipped if less time is left.
            compiles: True if it needs a compiler; it is skipped if there is none.
        """
        start = time.time()
        if (left := self.end - start) < seconds:
            columns: Result = {"skipped": f"{left:.0f} s were left, and it takes about {seconds:.0f} s"}
        elif compiles and self.compiler_problem:
            columns = {"skipped": f"no compiler works here: {self.compiler_problem}"}
        else:
            columns = _measure(measure)
            problem = columns.get("error", "")
            if "deterministic" in problem and torch.get_deterministic_debug_mode() == 2:
                torch.set_deterministic_debug_mode("default")
                columns = {**_measure(measure), "not_deterministic": problem}
                torch.set_deterministic_debug_mode("error")
        return {**labels, **columns, "wall_seconds": time.time() - start}


def _measure(measure: Callable[[], Result]) -> Result:
    """Measure with the memory free that earlier measurements took, also that which their tracebacks kept."""
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        return measure()
    except Exception as error:
        return {"error": describe_error(error)}


@dataclass(frozen=True)
class Part:
    """A part of the run."""

    name: str
    measure: Callable[..., Iterator[Result]]
    """Yields the rows of a `Job`, in a separate process."""
    fraction: float
    """The largest fraction of the budget that it may take; unused time is left to the parts after it."""
    columns: Columns
    note: str
    tiny: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of `measure` in a rehearsal."""


PROBLEMS = ("error", "skipped", "not_deterministic")
"""Columns that say why a row was not measured, or not as the stages do."""


def find_failed_checks(document: Result) -> list[Result]:
    """Return the checks of a part that failed, or need kernels that mdpipe would stop at: some are missing."""
    return [row for row in document["results"] if "check" in row and check_result(row) == "FAILED"]


def check_result(row: Result) -> str:
    """Return whether a check passed, failed or was skipped; it fails if a kernel is not deterministic."""
    return "skipped" if "skipped" in row else "FAILED" if row.keys() & {"error", "not_deterministic"} else "passed"


NOTE: Columns = {
    "note": lambda row: next((f"{key.replace('_', ' ')}: {row[key]}"[:160] for key in PROBLEMS if key in row), "")
}
CHECKS: Columns = {
    "check": "{check}",
    "variant": "{variant}",
    "result": check_result,
    "loss": "{loss:.1e} ({loss_tolerance:.0e})",
    "gradient": "{gradient:.1e} ({gradient_tolerance:.0e})",
    "worst parameter": "{parameter:.1e} ({parameter_tolerance:.0e})",
}
SPEED: Columns = {name: cell for name, cell in training.BENCHMARK.columns.items() if name != "orthogonalization"} | {
    "chunk": lambda row: f"{row['chunk_bytes'] / 2**20:,.3g} MiB",
    "MFU, data sheet": "{mfu_data_sheet:.1%}",
    "first step s": "{first_step_seconds:,.1f}",
}
SAMPLERS: Columns = {name: cell for name, cell in sampling.BENCHMARK.columns.items() if name != "x stepwise"}
TRAINING: Columns = {
    "when": "{what}",
    "bits per character, at most": "{bits_per_character:.4f}",
    "standard error": "{stderr:.4f}",
    "Monte Carlo": "{stderr_mc:.4f}",
    "steps": lambda row: f"{row['steps']:,}" + (", clock" if row["stopped_by_the_clock"] else ""),
    "epochs": "{epochs:.1f}",
    "tokens/s": "{tokens_per_second:,.0f}",
}
SUMMARY: Columns = {
    "part": "{part}",
    "status": "{status}",
    "seconds": "{seconds:.0f}",
    "failed checks": lambda document: str(len(find_failed_checks(document))) if document["results"] else "",
    "note": lambda document: document["error"] or "",
}
TINY_CASES = {name: replace(case, shape=case.shape.shrink()) for name, case in gpu_checks.CASES.items()}
TINY_SAMPLING = replace(
    measurements.SAMPLING, length=8, vocab_size=11, steps=10, steady_steps=3, num_layers=1, hidden_size=24, threads=1
)
PARTS = (
    Part(
        "correctness",
        gpu_checks.run_correctness,
        0.2,
        CHECKS | NOTE,
        "Relative differences from a CPU in float32 (tolerance): of the losses of three steps, of the first"
        " gradient, and of the parameter's gradient that differs most. Small networks, dropout on.",
        tiny={"cases": TINY_CASES, "sampled_vocab_size": 500},
    ),
    Part(
        "parallel",
        gpu_checks.run_parallel,
        0.08,
        CHECKS | NOTE,
        "DDP and FSDP2 in a group of one process, against a CPU process without a group.",
        tiny={"cases": TINY_CASES},
    ),
    Part(
        "speed",
        measurements.run_speed,
        0.42,
        SPEED | NOTE,
        "The training step of `mdpipe train` on random tokens, by MD4 and AdamW. FLOP/s count the network's dense"
        " products, forward and backward, over all positions; the head runs at masked positions only, so the MFU"
        " credits what that saves. Memory is the most that tensors took (on a CPU, the process).",
        tiny={
            "networks": {name: shape.shrink() for name, shape in measurements.NETWORKS.items()},
            "step": replace(measurements.STEP, steps=4, group=2, warm_up=1, threads=1),
            "doublings": 2,
            "chunk_bytes": (2**10, 2**26),
        },
    ),
    Part(
        "samplers",
        measurements.run_samplers,
        0.11,
        SAMPLERS | NOTE,
        "ancestral_stepwise and two_stage were measured over a few steps and scaled to all, since all"
        " their steps cost the same. Kernels need not be deterministic.",
        tiny={"settings": TINY_SAMPLING},
    ),
    Part(
        "training",
        measurements.run_training,
        1.0,
        TRAINING | NOTE,
        "The text is made of docstrings of Python's standard library in text8's alphabet. It is not text8:"
        " the bounds are not comparable with published ones.",
        tiny={
            "package": "json",
            "shape": replace(measurements.TEXT.shrink(), batch=8),
            "held_out": 2_000,
            "estimator": EstimatorConfig(num_mc_samples=2, batch_size=32),
            "seconds": 2,
            "learning_rate": 1e-2,
        },
    ),
)
"""The most important first."""


def run(parts: Sequence[Part], out: Path, *, budget: float, tiny: bool = False, commit: str | None = None) -> bool:
    """Run the parts and write their files and summary.md; return whether all finished and no check failed.

    Args:
        parts: Parts to run, in this order.
        out: Folder to write to.
        budget: Seconds for all of them.
        tiny: True to measure tiny sizes, as a rehearsal.
        commit: Commit of the checkout, where git cannot tell.
    """
    end = time.time() + budget
    documents: list[Result] = []
    for part in parts:
        limit = min(part.fraction * budget, end - time.time())
        documents.append(_run_limited(part, out / f"{part.name}.json", limit, tiny, commit))
        atomic_write(out / "summary.md", summarize(documents, parts).encode())
    return all(document["status"] == "finished" and not find_failed_checks(document) for document in documents)


def _run_limited(part: Part, path: Path, limit: float, tiny: bool, commit: str | None) -> Result:
    """Run a part in its own process, write its file after every row, and return the file's content."""
    start = time.time()
    document: Result = {"part": part.name, "tiny": tiny, "status": "running", "error": None, "results": []}
    try:
        measure = partial(part.measure, **(part.tiny if tiny else {}))
        rows = stream_alone(_run_part, measure, start + limit - GRACE, tiny, limit=limit)
        machine = next(rows)
        document["machine"] = machine | {"commit": commit or machine["commit"]}
        for row in rows:
            document["results"].append(row)
            atomic_write(path, to_json(document).encode())
            logger.info(f"{part.name}: " + json.dumps(row)[:400])
        document["status"] = "finished"
    except TimeoutError:
        document |= {"status": "out of time", "error": f"it was ended after {limit:.0f} s"}
    except ValueError as error:
        document |= {"status": "failed", "error": str(error)}
    document |= {"seconds": time.time() - start, "limit": limit}
    atomic_write(path, to_json(document).encode())
    return document


def _run_part(measure: Callable[[Job], Iterator[Result]], end: float, tiny: bool) -> Iterator[Result]:
    """Yield the description of the machine, and then the rows of a part.

    Raises:
        RuntimeError: There is no GPU, and it is not a rehearsal.
    """
    device, threads = compute_device(), 1 if tiny else measurements.THREADS
    configure_runtime(threads)
    yield describe_machine(device.type, threads)
    if device.type != "cuda" and not tiny:
        raise RuntimeError("torch sees no GPU here; --tiny rehearses on a CPU")
    traces_only = tiny and device.type == "cpu"
    with torch.compiler.set_stance("default", force_backend=REHEARSAL_BACKEND) if traces_only else nullcontext():
        yield from measure(Job(device, end))


def summarize(documents: Sequence[Result], parts: Sequence[Part]) -> str:
    """Return the page of the parts that were run so far."""
    lines = ["# GPU run", ""]
    if documents[0]["tiny"]:
        rehearsal = "A rehearsal with tiny sizes: no figure below is a result. On a CPU, compiled rows are only traced."
        lines += [rehearsal, ""]
    if machine := next((document["machine"] for document in documents if "machine" in document), None):
        lines += [format_machine(machine), ""]
    lines += [to_table(documents, SUMMARY)]
    for part, document in zip(parts, documents, strict=False):
        lines += [f"## {part.name.capitalize()}", "", part.note, ""]
        if document["results"]:
            lines += [to_table(document["results"], part.columns)]
    return "\n".join(lines)


def main() -> None:
    """Read the command line and run."""
    # As in `mdpipe`: threads that wait sleep. The parts inherit these settings; this process computes nothing.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    parser = argparse.ArgumentParser(prog="python -m mdpipe.benchmarks.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write the results to")
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds for everything (default: %(default)s)")
    parser.add_argument("--tiny", action="store_true", help="rehearse with tiny sizes, on a CPU if there is no GPU")
    parser.add_argument("--commit", help="commit of the checkout, where git cannot tell")
    options = parser.parse_args()
    configure_logging()
    is_fine = run(PARTS, **vars(options))
    sys.stdout.write((options.out / "summary.md").read_text())
    raise SystemExit(0 if is_fine else 1)


if __name__ == "__main__":
    main()
