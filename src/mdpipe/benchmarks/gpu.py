"""One prepared run on a GPU: correctness and speed of training, speed of samplers, and the likelihood after training.

    PYTHONPATH=src python -m mdpipe.benchmarks.gpu --out DIR

It needs a checkout, torch, numpy, pydantic, PyYAML, safetensors and rich. Every part runs in a separate process, within
a time limit, and writes its file after every measurement, so that a part that fails or hangs costs no result of
another. `--tiny` rehearses all of it on a CPU, except code generation.
"""

import argparse
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mdpipe.benchmarks.gpu_checks import run_correctness, run_parallel
from mdpipe.benchmarks.gpu_measurements import run_samplers, run_speed, run_training
from mdpipe.benchmarks.gpu_report import Job, run_part
from mdpipe.benchmarks.runner import Result, format_machine, stream_alone, to_table
from mdpipe.benchmarks.sampling import SamplingBenchmark
from mdpipe.benchmarks.training import TrainingBenchmark
from mdpipe.console import configure_logging
from mdpipe.data.artifacts.files import atomic_write
from mdpipe.reporting.markdown import Columns

logger = logging.getLogger("mdpipe.benchmarks.gpu")

BUDGET = 520.0
"""Seconds: under nine minutes, so that a job of ten minutes has time to start and to copy files."""
RESERVE = 2.0
"""Seconds kept for writing the summary."""
GRACE = 3.0
"""Seconds between the time when a part should end by itself and when it is killed."""


def _is_failed(check: Result) -> bool:
    """Return whether a check failed, or needs kernels that are not deterministic: mdpipe stops where one is missing."""
    return "skipped" not in check and ("error" in check or "not_deterministic" in check)


def find_failed_checks(document: Result) -> list[Result]:
    """Return the checks of a part that did not pass."""
    return [result for result in document["results"] if "check" in result and _is_failed(result)]


def _describe_problem(result: Result) -> str:
    problems = [key for key in ("error", "skipped", "not_deterministic") if key in result]
    return f"{problems[0].replace('_', ' ')}: {result[problems[0]]}"[:160] if problems else ""


CHECKS: Columns = {
    "check": "{check}",
    "variant": "{variant}",
    "result": lambda result: "skipped" if "skipped" in result else "FAILED" if _is_failed(result) else "passed",
    "loss": "{loss:.1e} ({loss_tolerance:.0e})",
    "gradient": "{gradient:.1e} ({gradient_tolerance:.0e})",
    "worst parameter": "{parameter:.1e} ({parameter_tolerance:.0e})",
    "note": _describe_problem,
}
SPEED: Columns = {name: cell for name, cell in TrainingBenchmark.columns.items() if name != "orthogonalization"} | {
    "chunk": lambda result: f"{result['chunk_bytes'] / 2**20:,.3g} MiB",
    "MFU, data sheet": "{mfu_data_sheet:.1%}",
    "first step s": "{first_step_seconds:,.1f}",
    "note": _describe_problem,
}
SAMPLERS: Columns = {name: cell for name, cell in SamplingBenchmark.columns.items() if name != "x stepwise"} | {
    "note": _describe_problem
}
TRAINING: Columns = {
    "when": "{what}",
    "bits per character, at most": "{bits_per_character:.4f}",
    "standard error": "{stderr:.4f}",
    "Monte Carlo": "{stderr_mc:.4f}",
    "steps": lambda result: f"{result['steps']:,}" + (", clock" if result["stopped_by_the_clock"] else ""),
    "epochs": "{epochs:.1f}",
    "tokens/s": "{tokens_per_second:,.0f}",
    "note": _describe_problem,
}
SUMMARY: Columns = {
    "part": "{part}",
    "status": "{status}",
    "seconds": "{seconds:.0f}",
    "failed checks": lambda document: str(len(find_failed_checks(document))) if document["results"] else "",
    "note": lambda document: document["error"] or "",
}


@dataclass(frozen=True)
class Part:
    """A part of the run."""

    name: str
    measure: Callable[[Job], Iterator[Result]]
    """Yields the rows, in a process of its own."""
    fraction: float
    """The largest fraction of the budget that it may take; unused time is left to the parts after it."""
    columns: Columns
    note: str


PARTS = (
    Part(
        "correctness",
        run_correctness,
        0.2,
        CHECKS,
        "Relative differences from a CPU in float32 (tolerance): of the losses of three steps, of the first"
        " gradient, and of the parameter's gradient that differs most. Small networks, dropout on.",
    ),
    Part(
        "parallel",
        run_parallel,
        0.08,
        CHECKS,
        "DDP and FSDP2 in a group of one process, against a CPU process without a group.",
    ),
    Part(
        "speed",
        run_speed,
        0.42,
        SPEED,
        "The training step of `mdpipe train` on random tokens, by MD4 and AdamW. FLOP/s count the network's dense"
        " products, forward and backward, over all positions; the head runs at masked positions only, so the MFU"
        " credits what that saves. Memory is the most that tensors took (on a CPU, the process).",
    ),
    Part(
        "samplers",
        run_samplers,
        0.11,
        SAMPLERS,
        "ancestral_stepwise and two_stage were measured over a few steps and scaled to all, since all"
        " their steps cost the same. Kernels need not be deterministic.",
    ),
    Part(
        "training",
        run_training,
        1.0,
        TRAINING,
        "The text is made of docstrings of Python's standard library in text8's alphabet. It is not text8:"
        " the bounds are not comparable with published ones.",
    ),
)
"""The most important first."""


def run(
    out: Path, *, parts: Sequence[Part] = PARTS, budget: float = BUDGET, tiny: bool = False, commit: str | None = None
) -> bool:
    """Run the parts and write their files and summary.md; return whether all finished and no check failed.

    Args:
        out: folder to write to.
        parts: in this order.
        budget: seconds for all of them.
        tiny: whether to measure tiny sizes, as a rehearsal.
        commit: of the checkout, where git cannot tell.
    """
    out.mkdir(parents=True, exist_ok=True)
    end = time.time() + budget - RESERVE
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
        rows = stream_alone(run_part, part.measure, start + limit - GRACE, tiny, commit, limit=limit)
        for row in rows:
            if "head" in row:
                document |= row["head"]
                continue
            document["results"].append(row)
            _write_document(path, document)
            logger.info(f"{part.name}: " + json.dumps(row)[:400])
        document["status"] = "finished"
    except TimeoutError:
        document |= {"status": "out of time", "error": f"it was ended after {limit:.0f} s"}
    except ValueError as error:
        document |= {"status": "failed", "error": str(error)}
    document |= {"seconds": time.time() - start, "limit": limit}
    _write_document(path, document)
    return document


def _write_document(path: Path, document: Result) -> None:
    atomic_write(path, (json.dumps(document, indent=2) + "\n").encode())


def summarize(documents: Sequence[Result], parts: Sequence[Part] = PARTS) -> str:
    """Return the page."""
    machine = next((document["machine"] for document in documents if "machine" in document), None)
    lines = ["# GPU run", ""]
    if any(document["tiny"] for document in documents):
        lines += ["A rehearsal with tiny sizes: no figure below is a result. On a CPU, compiled rows are only traced."]
        lines += [""]
    if machine is not None:
        gpu = f"CUDA {machine['cuda']}, GPU memory {machine['gpu_memory_gib']} GiB.\n" if "cuda" in machine else ""
        lines += [format_machine(machine), gpu]
    lines += [to_table(documents, SUMMARY)]
    by_name = {part.name: part for part in parts}
    for document in documents:
        part = by_name[document["part"]]
        lines += [f"## {part.name.capitalize()}", "", part.note, ""]
        if document["results"]:
            lines += [to_table(document["results"], part.columns)]
    return "\n".join(lines)


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m mdpipe.benchmarks.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write the results to")
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds for everything (default: %(default)s)")
    parser.add_argument("--tiny", action="store_true", help="rehearse with tiny sizes, on a CPU if there is no GPU")
    parser.add_argument("--commit", help="of the checkout, where git cannot tell")
    options = parser.parse_args()
    configure_logging()
    is_fine = run(options.out, budget=options.budget, tiny=options.tiny, commit=options.commit)
    sys.stdout.write((options.out / "summary.md").read_text())
    raise SystemExit(0 if is_fine else 1)


if __name__ == "__main__":
    main()
