"""How far a long stage is: a bar on a terminal, a line now and then in a log, with rate and time left."""

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bar

SECONDS_A_LINE = 10.0


class Progress:
    """Bytes done of a total, which may be unknown. Used as a context manager."""

    def __init__(self, what: str, total: int | None) -> None:
        self.what, self.total, self.done = what, total, 0
        self._began = self._told = time.monotonic()
        self._before = 0
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
        self._bar = Bar(*columns, TransferSpeedColumn(), TimeRemainingColumn(), console=console, transient=True)
        self._task = self._bar.add_task(what, total=total)
        self._shown = console.is_terminal

    def advance(self, count: int, made_before: bool = False) -> None:
        """So many bytes more are done; what an earlier process did counts for the place, not for the rate."""
        self.done += count
        if made_before:
            self._before += count
        self._bar.advance(self._task, count)
        now = time.monotonic()
        if not self._shown and now - self._told >= SECONDS_A_LINE:
            self._told = now
            print(self.line(now - self._began), file=sys.stderr, flush=True)  # noqa: T201

    def line(self, seconds: float) -> str:
        """What a log is told after so many seconds."""
        rate = (self.done - self._before) / max(seconds, 1e-9)
        line = f"{self.what}: {self.done / 1e6:,.1f} MB"
        if self.total:
            line += f" of {self.total / 1e6:,.1f} MB, {rate / 1e6:.1f} MB/s"
            return line + f", {max(self.total - self.done, 0) / max(rate, 1.0):,.0f} s left"
        return line + f", {rate / 1e6:.1f} MB/s"

    def __enter__(self) -> Self:
        if self._shown:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown:
            self._bar.stop()
