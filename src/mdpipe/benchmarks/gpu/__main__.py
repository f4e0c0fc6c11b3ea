"""The GPU run: starts its parts one after another, each with a time limit, and writes a summary after each."""

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
from typing import Any

from mdpipe.benchmarks.gpu.summary import find_failed_checks, summarize
from mdpipe.data.artifacts.aside import write_aside

BUDGET = 520.0
"""Seconds: under nine minutes, so that a job of ten minutes has time to start and to copy files."""
RESERVE = 2.0
"""Seconds kept for writing the summary."""
GRACE = 3.0
"""Seconds between the moment when a part should have ended by itself and the one when it is killed."""


@dataclass(frozen=True)
class Part:
    """A part of the run."""

    name: str
    program: tuple[str, ...]
    """What `python -m` runs: a program that reads a job from its standard input and writes the part's file."""
    fraction: float
    """Of the budget that it may take at most; what it does not need is left to the parts after it."""


PARTS = tuple(
    Part(name, ("mdpipe.benchmarks.gpu.part", f"mdpipe.benchmarks.gpu.{name}"), fraction)
    for name, fraction in (
        ("correctness", 0.2),
        ("parallel", 0.08),
        ("speed", 0.42),
        ("samplers", 0.11),
        ("training", 1.0),
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
    documents = []
    for part in parts:
        limit = min(part.fraction * budget, end - time.time())
        documents.append(_run_part(part, out / f"{part.name}.json", limit, tiny, commit))
        write_aside(out / "summary.md", summarize(documents).encode())
    return all(document["status"] == "finished" and not find_failed_checks(document) for document in documents)


def _run_part(part: Part, path: Path, limit: float, tiny: bool, commit: str | None) -> dict[str, Any]:
    """Run a part in a process of its own and return what is in its file, with how it ended."""
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
    document: dict[str, Any] = {"part": part.name, "tiny": tiny, "status": "running", "error": None, "results": []}
    if path.exists():
        document |= json.loads(path.read_text())
    if error is not None:
        document |= {"status": "out of time", "error": error}
    elif process.returncode and document["status"] == "running":
        error = f"its process ended with status {process.returncode}; what it printed says more"
        document |= {"status": "failed", "error": error}
    document |= {"seconds": time.time() - start, "limit": limit}
    write_aside(path, (json.dumps(document, indent=2) + "\n").encode())
    return document


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
