"""Progress on the standard error: a bar on a terminal, lines in a log."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as Bar

LOG_INTERVAL = 10.0
"""Seconds between lines of progress in a log."""


def progress_bar(*columns: ProgressColumn, transient: bool = True) -> Bar:
    """Return a bar on the standard error, with a description before it and columns after it.

    It is disabled if the standard error is not a terminal. If it is transient, it disappears when the work ends.
    """
    console = Console(stderr=True)
    layout = (TextColumn("{task.description}"), BarColumn(), *columns)
    return Bar(*layout, console=console, transient=transient, disable=not console.is_terminal)


@contextmanager
def count_steps(task: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar while the block runs; give it what to call with the number of steps done and of all steps."""
    with progress_bar(MofNCompleteColumn(), TimeRemainingColumn()) as bar:
        number = bar.add_task(task, total=None)
        yield lambda done, steps: bar.update(number, completed=done, total=steps)


class Progress:
    """Progress in bytes: a bar on a terminal, a line every few seconds in a log. Used as a context manager."""

    def __init__(self, task: str, total: int | None) -> None:
        self.task, self.total, self.done, self._resumed = task, total, 0, 0
        self._start = self._last_line = time.monotonic()
        self._bar = progress_bar(DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        self._bar_task = self._bar.add_task(task, total=total)

    def advance(self, count: int, *, is_resumed: bool = False) -> None:
        """Add bytes; those of an earlier process are done, but do not count for the rate."""
        self.done += count
        if is_resumed:
            self._resumed += count
        self._bar.advance(self._bar_task, count)
        now = time.monotonic()
        if self._bar.disable and now - self._last_line >= LOG_INTERVAL:
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
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
