"""The GPU run: run the parts one after another, each with a time limit, and write a summary after each."""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mdpipe.benchmarks.runner import Columns, Result, format_machine, to_table
from mdpipe.data.artifacts.files import atomic_write

BUDGET = 520.0
"""Seconds: under nine minutes, so that a job of ten minutes has time to start and to copy files."""
RESERVE = 2.0
"""Seconds kept for writing the summary."""
GRACE = 3.0
"""Seconds between the time when a part should end by itself and when it is killed."""


@dataclass(frozen=True)
class Part:
    """A part of the run."""

    name: str
    program: tuple[str, ...]
    """The arguments of `python -m`: a program that reads a job from its standard input and writes the part's file."""
    fraction: float
    """The largest fraction of the budget that it may take; unused time is left to the parts after it."""


PARTS = tuple(
    Part(name, ("mdpipe.benchmarks.gpu.report", f"mdpipe.benchmarks.gpu.{program}"), fraction)
    for name, program, fraction in (
        ("correctness", "correctness:run", 0.2),
        ("parallel", "correctness:run_parallel", 0.08),
        ("speed", "speed:run", 0.42),
        ("samplers", "speed:run_samplers", 0.11),
        ("training", "training:run", 1.0),
    )
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
        documents.append(_run_part(part, out / f"{part.name}.json", limit, tiny, commit))
        atomic_write(out / "summary.md", summarize(documents).encode())
    return all(document["status"] == "finished" and not find_failed_checks(document) for document in documents)


def _run_part(part: Part, path: Path, limit: float, tiny: bool, commit: str | None) -> Result:
    """Run a part in its own process and return the content of its file and how it ended."""
    path.unlink(missing_ok=True)
    start = time.time()
    job = {"part": part.name, "path": str(path), "end": start + limit - GRACE, "tiny": tiny, "commit": commit}
    command = [sys.executable, "-m", *part.program]
    error = None
    # A group of its own, so that the compiler's processes end with it.
    process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, process_group=0)
    try:
        process.communicate(json.dumps(job), timeout=max(limit, 0))
    except subprocess.TimeoutExpired:
        error = f"it was ended after {limit:.0f} s"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    document: Result = {"part": part.name, "tiny": tiny, "status": "running", "error": None, "results": []}
    if path.exists():
        document |= json.loads(path.read_text())
    if error is not None:
        document |= {"status": "out of time", "error": error}
    elif process.returncode and document["status"] == "running":
        error = f"its process ended with status {process.returncode}; what it printed says more"
        document |= {"status": "failed", "error": error}
    document |= {"seconds": time.time() - start, "limit": limit}
    atomic_write(path, (json.dumps(document, indent=2) + "\n").encode())
    return document


def _format_number(result: Result, key: str, form: str) -> str:
    value = result.get(key)
    return "" if value is None else format(value, form)


def _describe_problem(result: Result) -> str:
    for key in ("error", "skipped", "not_deterministic"):
        if key in result:
            return f"{key.replace('_', ' ')}: {result[key]}"[:160]
    return ""


def _describe_result(result: Result) -> str:
    if "skipped" in result:
        return "skipped"
    return "passed" if _is_passed(result) else "FAILED"


def _is_passed(result: Result) -> bool:
    """Return whether a check passed, with deterministic kernels: mdpipe stops where one is missing."""
    return bool(result.get("passed")) and "not_deterministic" not in result


CHECKS: Columns = {
    "check": lambda result: result["check"],
    "variant": lambda result: result["variant"],
    "result": _describe_result,
    "loss": lambda result: _format_difference(result, "loss"),
    "gradient": lambda result: _format_difference(result, "gradient"),
    "worst parameter": lambda result: _format_difference(result, "parameter"),
    "note": _describe_problem,
}
SPEED: Columns = {
    "network": lambda result: result["network"],
    "batch": lambda result: str(result["batch"]),
    "compiled": lambda result: "yes" if result["compiled"] else "no",
    "chunk": lambda result: f"{result['chunk_bytes'] / 2**20:,.3g} MiB" if "chunk_bytes" in result else "",
    "tokens/s": lambda result: _format_number(result, "tokens_per_second", ",.0f"),
    "examples/s": lambda result: _format_number(result, "examples_per_second", ",.4g"),
    "MFU, measured peak": lambda result: _format_number(result, "mfu", ".1%"),
    "MFU, data sheet": lambda result: _format_number(result, "mfu_data_sheet", ".1%"),
    "peak MiB": lambda result: _format_number(result, "peak_mem_mib", ",.0f"),
    "first step s": lambda result: _format_number(result, "first_step_seconds", ",.1f"),
    "note": _describe_problem,
}
SAMPLERS: Columns = {
    "sampler": lambda result: result["sampler"],
    "batch": lambda result: str(result["batch"]),
    "tokens/s": lambda result: _format_number(result, "tokens_per_second", ",.4g"),
    "seconds": lambda result: _format_number(result, "seconds", ",.4g"),
    "network calls": lambda result: _format_number(result, "network_calls", ",.0f"),
    "MFU, measured peak": lambda result: _format_number(result, "mfu", ".1%"),
    "peak MiB": lambda result: _format_number(result, "peak_mem_mib", ",.0f"),
    "steps measured": lambda result: _format_number(result, "steps_measured", ","),
    "note": _describe_problem,
}
TRAINING: Columns = {
    "when": lambda result: result["what"],
    "bits per character, at most": lambda result: _format_number(result, "bits_per_character", ".4f"),
    "standard error": lambda result: _format_number(result, "stderr", ".4f"),
    "of the draws": lambda result: _format_number(result, "stderr_draws", ".4f"),
    "steps": lambda result: (
        _format_number(result, "steps", ",") + (", clock" if result.get("stopped_by_the_clock") else "")
    ),
    "epochs": lambda result: _format_number(result, "epochs", ".1f"),
    "tokens/s": lambda result: _format_number(result, "tokens_per_second", ",.0f"),
    "note": _describe_problem,
}
COLUMNS: dict[str, Columns] = {
    "correctness": CHECKS,
    "parallel": CHECKS,
    "speed": SPEED,
    "samplers": SAMPLERS,
    "training": TRAINING,
}
NOTES = {
    "correctness": "Relative differences from a CPU in float32 (tolerance): of the losses of three steps, of the first"
    " gradient, and of the parameter's gradient that differs most. Small networks, dropout on.",
    "parallel": "DDP and FSDP2 in a group of one process, against a CPU process without a group.",
    "speed": "The training step of `mdpipe train` on random tokens, by MD4 and AdamW. FLOP/s count the network's dense"
    " products, forward and backward, over all positions; the head runs at masked positions only, so the MFU credits"
    " what that saves. Memory is the most that tensors took (on a CPU, the process).",
    "samplers": "ancestral_stepwise and two_stage were measured over a few steps and scaled to all, since all"
    " their steps cost the same. Kernels need not be deterministic.",
    "training": "The text is made of docstrings of Python's standard library in text8's alphabet. It is not text8:"
    " the bounds are not comparable with published ones.",
}


def summarize(documents: Sequence[Result]) -> str:
    """Return the page."""
    machine = next((document["machine"] for document in documents if "machine" in document), None)
    lines = ["# GPU run", ""]
    if any(document.get("tiny") for document in documents):
        lines += ["A rehearsal with tiny sizes: no figure below is a result.", ""]
    if machine is not None:
        gpu = f"CUDA {machine['cuda']}, GPU memory {machine['gpu_memory_gib']} GiB.\n" if "cuda" in machine else ""
        lines += [format_machine(machine), gpu]
    lines += [to_table(documents, PART_COLUMNS)]
    for document in documents:
        lines += [f"## {document['part'].capitalize()}", "", NOTES.get(document["part"], ""), ""]
        if document["results"] and document["part"] in COLUMNS:
            lines += [to_table(document["results"], COLUMNS[document["part"]])]
    return "\n".join(lines)


def find_failed_checks(document: Result) -> list[Result]:
    """Return the checks of a part that did not pass."""
    checks = [result for result in document["results"] if "check" in result]
    return [result for result in checks if "skipped" not in result and not _is_passed(result)]


PART_COLUMNS: Columns = {
    "part": lambda document: document["part"],
    "status": lambda document: document["status"],
    "seconds": lambda document: f"{document['seconds']:.0f}",
    "failed checks": lambda document: str(len(find_failed_checks(document))),
    "note": lambda document: document["error"] or "",
}


def _format_difference(result: Result, key: str) -> str:
    return f"{result[key]:.1e} ({result[f'{key}_tolerance']:.0e})" if key in result else ""


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m mdpipe.benchmarks.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write the results to")
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds for everything (default: %(default)s)")
    parser.add_argument("--tiny", action="store_true", help="rehearse with tiny sizes, on a CPU if there is no GPU")
    parser.add_argument("--commit", help="of the checkout, where git cannot tell")
    options = parser.parse_args()
    fine = run(options.out, budget=options.budget, tiny=options.tiny, commit=options.commit)
    sys.stdout.write((options.out / "summary.md").read_text())
    raise SystemExit(0 if fine else 1)


if __name__ == "__main__":
    main()
