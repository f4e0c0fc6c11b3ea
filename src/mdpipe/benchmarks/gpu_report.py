"""The process of a part of a GPU run, whose rows are measured, skipped or failed."""

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import torch

from mdpipe.benchmarks.runner import Result, describe_error, describe_machine
from mdpipe.networks.runtime import configure_runtime
from mdpipe.training.performance import find_compiler_problem

THREADS = 8
"""CPU threads of a part; a rehearsal has one."""
REHEARSAL_BACKEND = "aot_eager_decomp_partition"
"""Compiler of a rehearsal on a CPU. It traces, decomposes and partitions as the default one does, then runs the graphs
eagerly: to generate and compile C++ takes many times longer, and a GPU runs other code."""


class SkipError(Exception):
    """A measurement that cannot be made here; the message says why."""


@dataclass(frozen=True)
class Job:
    """The conditions of a part: the device, whether it is a rehearsal, and the time when it should end by itself."""

    device: torch.device
    tiny: bool
    end: float

    def attempt(self, labels: Result, measure: Callable[[], Result], seconds: float = 0) -> Result:
        """Return the labels with the columns that `measure` returns, or with the reason why there are none.

        Args:
            labels: what the row is about.
            measure: may raise SkipError. If a kernel has no deterministic form, it is called again without that demand,
                and the row has the column `not_deterministic`.
            seconds: its approximate duration; it is skipped if less time is left.
        """
        start = time.time()
        if self.end - start < seconds:
            columns: Result = {"skipped": f"{self.end - start:.0f} s were left, and it takes about {seconds:.0f} s"}
        else:
            free_memory()
            columns = _measure_columns(measure)
        return {**labels, **columns, "wall_seconds": time.time() - start}


def _measure_columns(measure: Callable[[], Result]) -> Result:
    try:
        return measure()
    except SkipError as skip:
        return {"skipped": str(skip)}
    except Exception as error:
        problem = describe_error(error)
    # The exception, whose traceback kept tensors alive, is gone here.
    free_memory()
    if "deterministic" not in problem or torch.get_deterministic_debug_mode() != 2:
        return {"error": problem}
    torch.set_deterministic_debug_mode("default")
    try:
        return {**_measure_columns(measure), "not_deterministic": problem}
    finally:
        torch.set_deterministic_debug_mode("error")


def is_measured(row: Result) -> bool:
    """Return whether a row has measurements."""
    return "error" not in row and "skipped" not in row


def require_compiler(device: torch.device) -> None:
    """Raise SkipError if torch.compile does not work on the device."""
    if problem := find_compiler_problem(device):
        raise SkipError(f"no compiler works here: {problem}")


def free_memory() -> None:
    """Release the memory of tensors of earlier measurements, and reset the peak of a GPU's memory."""
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def run_part(
    measure: Callable[[Job], Iterator[Result]], end: float, tiny: bool, commit: str | None
) -> Iterator[Result]:
    """Yield the rows of a part; one whose only key is "head" has entries of the file above its rows.

    Raises:
        RuntimeError: there is no GPU, and it is not a rehearsal.
    """
    threads = 1 if tiny else THREADS
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    configure_runtime(threads)
    machine = describe_machine(device.type, threads)
    machine |= {"commit": commit or machine["commit"]}
    if device.type == "cuda":
        machine |= {
            "gpu_memory_gib": round(torch.cuda.get_device_properties(device).total_memory / 2**30, 1),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        }
    yield {"head": {"machine": machine}}
    if device.type != "cuda" and not tiny:
        raise RuntimeError("torch sees no GPU here; --tiny rehearses on a CPU")
    traces_only = tiny and device.type == "cpu"
    with torch.compiler.set_stance("default", force_backend=REHEARSAL_BACKEND) if traces_only else nullcontext():
        yield from measure(Job(device, tiny, end))
