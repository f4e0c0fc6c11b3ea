"""One part of the GPU run, in its own process: `python -m mdpipe.benchmarks.gpu.report MODULE:FUNCTION`.

It reads a job from the standard input, as JSON, and calls `FUNCTION(report)` of the module. The part's file is written
again after every measurement.
"""

import gc
import json
import logging
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from mdpipe.benchmarks.gpu.sizes import FULL, TINY, Sizes
from mdpipe.benchmarks.runner import describe_machine
from mdpipe.data.artifacts.files import atomic_write
from mdpipe.logs import configure_logging
from mdpipe.networks.runtime import configure_runtime

Row = dict[str, Any]

logger = logging.getLogger("mdpipe.benchmarks.gpu")


class Report:
    """The file of a part: where it ran, and a row for each measurement that was made, skipped or failed."""

    def __init__(self, path: Path, sizes: Sizes, device: torch.device, end: float, **document: Any) -> None:
        self.path = path
        self.sizes = sizes
        self.device = device
        self._end = end
        self.document: dict[str, Any] = {**document, "status": "running", "error": None, "results": []}
        self._write()

    def seconds_left(self) -> float:
        """Return the seconds until the part has to end by itself."""
        return self._end - time.time()

    def add(self, row: Row) -> None:
        """Add a row, write the file and print the row."""
        self.document["results"].append(row)
        self._write()
        logger.info(f"{self.path.stem}: " + json.dumps(row)[:400])

    def attempt(self, labels: Row, measure: Callable[[], Row], seconds: float = 0) -> Row | None:
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

    def _measure_columns(self, measure: Callable[[], Row]) -> Row:
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
    if "torch._dynamo" in sys.modules:  # Loading it takes seconds.
        torch.compiler.reset()
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()


def reset_peak_memory(device: torch.device) -> None:
    """Reset a GPU's peak memory; that of a CPU process cannot be reset."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:500]


def _describe(device: torch.device, threads: int, commit: str | None) -> Row:
    machine = describe_machine(device.type, threads)
    if commit is not None:
        machine["commit"] = commit
    if device.type == "cuda":
        machine |= {
            "gpu_memory_gib": round(torch.cuda.get_device_properties(device).total_memory / 2**30, 1),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        }
    return machine


def main(program: str) -> None:
    """Run the part MODULE:FUNCTION."""
    configure_logging()
    job = json.load(sys.stdin)
    sizes = TINY if job["tiny"] else FULL
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    configure_runtime(sizes.hardware.threads)
    machine = _describe(device, sizes.hardware.threads, job["commit"])
    report = Report(Path(job["path"]), sizes, device, job["end"], part=job["part"], tiny=job["tiny"], machine=machine)
    try:
        if device.type != "cuda" and not job["tiny"]:
            raise RuntimeError("torch sees no GPU here; --tiny rehearses on a CPU")
        module, _, function = program.partition(":")
        getattr(import_module(module), function)(report)
    except Exception as error:
        report.fail(error)
        raise
    report.finish()


if __name__ == "__main__":
    main(sys.argv[1])
