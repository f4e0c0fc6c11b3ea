"""One prepared run on a GPU: correctness and speed of training, speed of samplers, and the likelihood after training.

    PYTHONPATH=src python -m mdpipe.benchmarks.gpu --out DIR

It needs a checkout, torch, numpy, pydantic, PyYAML, safetensors and rich. Every part runs in a separate process, within
a time limit, and writes its file after every measurement, so that a part that fails or hangs costs no result of
another. `--tiny` rehearses all of it on a CPU, except code generation. This module does not load torch before it runs
a part.
"""

import argparse
import gc
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mdpipe.benchmarks.runner import Columns, Result, describe_machine, format_machine, to_table
from mdpipe.console import configure_logging
from mdpipe.data.artifacts.files import atomic_write

if TYPE_CHECKING:
    import torch

logger = logging.getLogger("mdpipe.benchmarks.gpu")

BUDGET = 520.0
"""Seconds: under nine minutes, so that a job of ten minutes has time to start and to copy files."""
RESERVE = 2.0
"""Seconds kept for writing the summary."""
GRACE = 3.0
"""Seconds between the time when a part should end by itself and when it is killed."""
THREADS = 8
"""CPU threads of a part; a rehearsal has one."""
NO_COMPILER = "no compiler works here"
REHEARSAL_BACKEND = "aot_eager_decomp_partition"
"""Compiler of a rehearsal on a CPU. It traces, decomposes and partitions as the default one does, then runs the graphs
eagerly: to generate and compile C++ takes many times longer, and a GPU runs other code."""


@dataclass(frozen=True)
class Part:
    """A part of the run."""

    name: str
    program: tuple[str, ...]
    """The arguments of `python -m`: a program that reads a job from its standard input and writes the part's file."""
    fraction: float
    """The largest fraction of the budget that it may take; unused time is left to the parts after it."""


PARTS = (
    Part("correctness", ("mdpipe.benchmarks.gpu_checks",), 0.2),
    Part("parallel", ("mdpipe.benchmarks.gpu_checks",), 0.08),
    Part("speed", ("mdpipe.benchmarks.gpu_measurements",), 0.42),
    Part("samplers", ("mdpipe.benchmarks.gpu_measurements",), 0.11),
    Part("training", ("mdpipe.benchmarks.gpu_measurements",), 1.0),
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
    # In a new process group, so that the compiler's processes end with it.
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


class Report:
    """The file of a part: where it ran, and a row for each measurement that was made, skipped or failed."""

    def __init__(self, path: Path, tiny: bool, device: "torch.device", end: float, **document: Any) -> None:
        self.path = path
        self.tiny = tiny
        self.device = device
        self._end = end
        self.document: Result = {**document, "tiny": tiny, "status": "running", "error": None, "results": []}
        self._write()

    def seconds_left(self) -> float:
        """Return the seconds until the part has to end by itself."""
        return self._end - time.time()

    def add(self, row: Result) -> None:
        """Add a row, write the file and print the row."""
        self.document["results"].append(row)
        self._write()
        logger.info(f"{self.path.stem}: " + json.dumps(row)[:400])

    def attempt(self, labels: Result, measure: Callable[[], Result], seconds: float = 0) -> Result | None:
        """Add the row that `measure` returns, or the reason why there is none; later measurements go on.

        Args:
            labels: what the row is about.
            measure: returns the other columns. If a kernel has no deterministic form, it is called again without that
                demand, and the row has the column `not_deterministic`.
            seconds: its approximate duration; it is skipped if less time is left.

        Returns:
            The row, or None if `measure` failed or was skipped.
        """
        left = self.seconds_left()
        if left < max(seconds, 0):
            self.add({**labels, "skipped": f"{left:.0f} s were left, and it takes about {seconds:.0f} s"})
            return None
        start = time.time()
        row = {**labels, **self._measure_columns(measure)}
        row["wall_seconds"] = time.time() - start
        self.add(row)
        return None if "error" in row else row

    def _measure_columns(self, measure: Callable[[], Result]) -> Result:
        import torch

        try:
            return measure()
        except torch.OutOfMemoryError as error:
            problem = {"error": "out of memory", "detail": _first_line(error)}
        except Exception as error:
            problem = {"error": f"{type(error).__name__}: {_first_line(error)}"}
        # The exception, whose traceback kept tensors alive, is gone here.
        free_memory()
        if "deterministic" in problem["error"] and torch.get_deterministic_debug_mode() == 2:
            torch.set_deterministic_debug_mode("default")
            try:
                return {**self._measure_columns(measure), "not_deterministic": problem["error"]}
            finally:
                torch.set_deterministic_debug_mode("error")
        return problem

    def finish(self) -> None:
        """Write that the part is complete."""
        self.document["status"] = "finished"
        self._write()

    def fail(self, error: Exception) -> None:
        """Write the error that the part failed with."""
        self.document |= {"status": "failed", "error": f"{type(error).__name__}: {_first_line(error)}"}
        self._write()

    def _write(self) -> None:
        atomic_write(self.path, (json.dumps(self.document, indent=2) + "\n").encode())


def free_memory() -> None:
    """Release what tensors and compiled code of earlier measurements hold."""
    import torch

    if "torch._dynamo" in sys.modules:  # Loading it takes seconds.
        torch.compiler.reset()
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()


def reset_peak_memory(device: "torch.device") -> None:
    """Reset the peak memory of a GPU; a CPU process's cannot be reset."""
    import torch

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:500]


def run_part(functions: Mapping[str, Callable[[Report], None]]) -> None:
    """Run the part that the job on the standard input names, and write its file.

    Args:
        functions: for each part the function that makes its measurements.
    """
    import torch

    from mdpipe.networks.runtime import configure_runtime

    configure_logging()
    job = json.load(sys.stdin)
    threads = 1 if job["tiny"] else THREADS
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    configure_runtime(threads)
    machine = describe_machine(device.type, threads)
    if job["commit"] is not None:
        machine["commit"] = job["commit"]
    if device.type == "cuda":
        machine |= {
            "gpu_memory_gib": round(torch.cuda.get_device_properties(device).total_memory / 2**30, 1),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        }
    report = Report(Path(job["path"]), job["tiny"], device, job["end"], part=job["part"], machine=machine)
    try:
        if device.type != "cuda" and not job["tiny"]:
            raise RuntimeError("torch sees no GPU here; --tiny rehearses on a CPU")
        traces_only = job["tiny"] and device.type == "cpu"
        forced = torch.compiler.set_stance("default", force_backend=REHEARSAL_BACKEND) if traces_only else nullcontext()
        with forced:
            functions[job["part"]](report)
    except Exception as error:
        report.fail(error)
        raise
    report.finish()


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
    "NFE": lambda result: _format_number(result, "nfe", ",.0f"),
    "MFU, measured peak": lambda result: _format_number(result, "mfu", ".1%"),
    "peak MiB": lambda result: _format_number(result, "peak_mem_mib", ",.0f"),
    "steps measured": lambda result: _format_number(result, "steps_measured", ","),
    "note": _describe_problem,
}
TRAINING: Columns = {
    "when": lambda result: result["what"],
    "bits per character, at most": lambda result: _format_number(result, "bits_per_character", ".4f"),
    "standard error": lambda result: _format_number(result, "stderr", ".4f"),
    "Monte Carlo": lambda result: _format_number(result, "stderr_mc", ".4f"),
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
        lines += ["A rehearsal with tiny sizes: no figure below is a result. On a CPU, compiled rows are only traced."]
        lines += [""]
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
    "failed checks": lambda document: str(len(find_failed_checks(document))) if document["results"] else "",
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
    is_fine = run(options.out, budget=options.budget, tiny=options.tiny, commit=options.commit)
    sys.stdout.write((options.out / "summary.md").read_text())
    raise SystemExit(0 if is_fine else 1)


if __name__ == "__main__":
    main()
