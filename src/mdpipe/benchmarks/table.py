"""Measurements as a table that reads the same on a terminal and in Markdown."""

import io
from collections.abc import Callable, Sequence
from typing import Any

from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

Result = dict[str, Any]
Columns = dict[str, Callable[[Result], str]]
"""What a heading shows of a result; the first says what was measured and stands to the left."""

WIDTH = 400
"""More characters than a row has, so that none is broken."""


def markdown(results: Sequence[Result], columns: Columns) -> str:
    """One row a result, numbers to the right."""
    table = Table(box=MARKDOWN)
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    for result in results:
        table.add_row(*(cell(result) for cell in columns.values()))
    console = Console(file=io.StringIO(), width=WIDTH)
    with console.capture() as captured:
        console.print(table)
    return "".join(f"{line.strip()}\n" for line in captured.get().strip().splitlines())


def hardware(machine: Result) -> str:
    """What it takes to judge a measurement, in a line or two."""
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB; on {machine['device']},"
        f" {machine['threads']} threads;\ntorch {machine['torch']}, Python {machine['python']};"
        f" commit {machine['commit']}."
    )


def with_error(value: float, stderr: float | None) -> str:
    """A number and its standard error."""
    return f"{value:,.1f}" if stderr is None else f"{value:,.1f} ± {stderr:,.1f}"
