"""Parallel work on shards, with progress: finished shards survive a kill and are not made again.

The result of a shard is a folder that is written atomically. Its content depends on the shard only, so the number of
processes changes nothing but the time.
"""

import multiprocessing
import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mdpipe.data.artifacts.files import DiskFullError, atomic_dir, read_json, write_json
from mdpipe.processes import exit_with_parent
from mdpipe.progress import Progress

Shard = TypeVar("Shard")
SUMMARY = "summary.json"
WORKERS = "MDPIPE_WORKERS"
"""Environment variable: number of processes of a stage that prepares data; by default one per core."""


@dataclass(frozen=True)
class ShardResult:
    """Folder and summary of a finished shard."""

    folder: Path
    summary: dict[str, Any]

    def load(self, name: str) -> NDArray[Any]:
        """Read NAME.npy of the folder."""
        array: NDArray[Any] = np.load(self.folder / f"{name}.npy", allow_pickle=False)
        return array


def map_shards(
    function: Callable[[Shard, Path], dict[str, Any]], shards: Sequence[Shard], work_dir: Path, progress: Progress
) -> list[ShardResult]:
    """Apply a function to every shard whose result is not in `work_dir` yet, in parallel.

    Args:
        function: A module-level function that fills the folder it is given and returns a summary for JSON. The key
            "bytes" of the summary, if present, advances the progress.
        shards: Arguments of the function, sent to other processes.
        work_dir: Folder that keeps results until the caller removes it.
        progress: Progress to advance with every shard.

    Raises:
        ValueError: A shard is invalid, the disk is full, or a process was killed; finished results are kept.
    """
    folders = [work_dir / f"{index:05d}" for index in range(len(shards))]
    missing = [index for index, folder in enumerate(folders) if not folder.exists()]
    for folder in folders:
        if folder.exists():
            progress.advance(_summary(folder).get("bytes", 0), is_resumed=True)
    with _mapper(min(num_workers(), len(missing))) as apply:
        try:
            for summary in apply(_run, [(function, shards[index], folders[index]) for index in missing]):
                if isinstance(summary, ValueError):
                    raise summary
                progress.advance(summary.get("bytes", 0))
        except DiskFullError:
            raise ValueError(
                f"{progress.task}: the disk of {work_dir} is full; unfinished shards were removed from it. Make room"
                " and run the stage again, which keeps the finished shards"
            ) from None
    return [ShardResult(folder, _summary(folder)) for folder in folders]


def num_workers() -> int:
    """Return the number of processes that may work at once.

    Raises:
        ValueError: The environment variable is not a positive number.
    """
    value = os.environ.get(WORKERS)
    if value is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not value.isdecimal() or int(value) < 1:
        raise ValueError(f"the environment variable {WORKERS} is {value!r}; it must be a positive number")
    return int(value)


@contextmanager
def _mapper(processes: int) -> Iterator[Callable[..., Iterator[Any]]]:
    if processes <= 1:
        yield map
        return
    # Spawned, not forked: the parent may hold threads of numpy, arrow or a progress bar.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=exit_with_parent)
    try:
        yield pool.map
    except BrokenProcessPool:
        raise ValueError(
            f"a process was killed, as happens when memory runs out; set the environment variable {WORKERS} below"
            f" {processes} and run the stage again: finished shards are kept"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _run(task: tuple[Callable[[Any, Path], dict[str, Any]], Any, Path]) -> dict[str, Any] | ValueError:
    """Return the summary, or the error of invalid input.

    The error is raised in the parent: an exception from another process has lost its traceback, by which the command
    line distinguishes invalid input from a bug.
    """
    function, shard, target = task
    try:
        with atomic_dir(target) as folder:
            summary = function(shard, folder)
            write_json(folder / SUMMARY, summary)
    except ValueError as error:
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        if frame.f_globals["__name__"].startswith("mdpipe."):
            return error
        raise
    return summary


def _summary(folder: Path) -> dict[str, Any]:
    return read_json(folder / SUMMARY, f"remove {folder.parent} and run the stage again")
