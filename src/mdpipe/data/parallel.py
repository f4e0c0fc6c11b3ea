"""Parallel work on shards, with progress: finished shards survive a kill and are not made again.

The result of a shard is a folder that is written atomically. Its content depends on the shard only, so the number of
processes changes nothing but the time.
"""

import multiprocessing
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bar

from mdpipe.data.artifacts.files import DISK_FULL_ERRNOS, atomic_dir, read_json, write_json

Shard = TypeVar("Shard")
SUMMARY = "summary.json"
WORKERS = "MDPIPE_WORKERS"
"""Environment variable: number of processes of a stage that prepares data; by default one per core."""
LOG_INTERVAL = 10.0
"""Seconds between lines of progress in a log."""


@dataclass(frozen=True)
class ShardResult:
    """Folder and summary of a finished shard."""

    folder: Path
    summary: dict[str, Any]


class Progress:
    """Progress in bytes: a bar on a terminal, a line every few seconds in a log. Used as a context manager."""

    def __init__(self, task: str, total: int | None) -> None:
        self.task, self.total, self.done = task, total, 0
        self._start = self._last_line = time.monotonic()
        self._resumed = 0
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
        self._bar = Bar(*columns, TransferSpeedColumn(), TimeRemainingColumn(), console=console, transient=True)
        self._bar_task = self._bar.add_task(task, total=total)
        self._is_shown = console.is_terminal

    def advance(self, count: int, *, is_resumed: bool = False) -> None:
        """Add bytes; those of an earlier process are done, but do not count for the rate."""
        self.done += count
        if is_resumed:
            self._resumed += count
        self._bar.advance(self._bar_task, count)
        now = time.monotonic()
        if not self._is_shown and now - self._last_line >= LOG_INTERVAL:
            self._last_line = now
            print(self.line(now - self._start), file=sys.stderr, flush=True)  # noqa: T201

    def line(self, seconds: float) -> str:
        """Return the line of a log after this many seconds."""
        rate = (self.done - self._resumed) / max(seconds, 1e-9)
        line = f"{self.task}: {self.done / 1e6:,.1f} MB"
        if self.total:
            line += f" of {self.total / 1e6:,.1f} MB, {rate / 1e6:.1f} MB/s"
            return line + f", {max(self.total - self.done, 0) / max(rate, 1.0):,.0f} s left"
        return line + f", {rate / 1e6:.1f} MB/s"

    def __enter__(self) -> Self:
        if self._is_shown:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_shown:
            self._bar.stop()


def map_shards(
    function: Callable[[Shard, Path], dict[str, Any]], shards: Sequence[Shard], scratch: Path, progress: Progress
) -> list[ShardResult]:
    """Apply a function to every shard whose result is not in `scratch` yet, in parallel.

    Args:
        function: a module-level function that fills the folder it is given and returns a summary for JSON. The key
            "bytes" of the summary, if present, advances the progress.
        shards: arguments of the function, sent to other processes.
        scratch: where results are kept until the caller removes it.
        progress: advanced with every shard.

    Raises:
        ValueError: a shard is invalid, the disk is full, or a process was killed; finished results are kept.
    """
    folders = [scratch / f"{index:05d}" for index in range(len(shards))]
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
        except OSError as error:
            if error.errno not in DISK_FULL_ERRNOS:
                raise
            raise ValueError(
                f"{progress.task}: the disk of {scratch} is full; unfinished shards were removed from it. Make room and"
                " run the stage again, which keeps the finished shards"
            ) from None
    return [ShardResult(folder, _summary(folder)) for folder in folders]


def num_workers() -> int:
    """Return the number of processes that may work at once.

    Raises:
        ValueError: the environment variable is no positive number.
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
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_exit_with_parent)
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


def _exit_with_parent() -> None:
    """Exit when the parent is killed, instead of waiting for the next shard forever."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
