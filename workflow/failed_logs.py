"""What Snakemake shows of a failed job: the last lines of its log, which say why, and the path of the rest."""

from collections.abc import Iterable, Iterator
from pathlib import Path

LINES = 15
WIDTH = 1000
"""Characters of a line that are shown."""

LARGEST = 2**20
"""Bytes read from the end of a log."""


def last_lines(logs: Iterable[str]) -> Iterator[str]:
    """Yield the last lines of each log under a heading with its path. Of a progress bar, the last state is shown."""
    for log in logs:
        path = Path(log)
        if not path.exists():
            yield f"{log} was not written: the job did not start"
            continue
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LARGEST))
            text = file.read().decode("utf-8", errors="replace")
        lines = [line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")]
        shown = [line[:WIDTH] for line in lines if line.strip()][-LINES:]
        yield f"The end of {log}:"
        yield from (f"    {line}" for line in shown)
