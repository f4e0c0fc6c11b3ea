"""Tables as files: CSV with every digit for programs, Markdown for people."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from mdpipe.data.artifacts.aside import write_aside
from mdpipe.reporting.columns import DATA
from mdpipe.reporting.rounding import measurement

ERROR_OF = {"value": "stderr"}
"""Columns whose standard error is not simply called COLUMN_stderr."""

DETAILS = frozenset(
    {
        "modality",
        "stderr_draws",
        "reconstruction",
        "prior",
        "diffusion",
        "bits_per_char",
        "bytes",
        "seed",
        "revision",
        "licence",
        "content",
        "unknown",
        "longest",
    }
)
"""Columns that only the CSV shows."""

BOUND_DETAILS = frozenset({"tokens"})
"""Columns that a table of bounds shows only in the CSV: its examples say how much was measured."""

FIRST = ("run", "estimator")
"""The columns that say what gave the row's numbers; a person reads them together."""

LAST = ("examples", "draws", "parameters")
"""The columns that say what a model's numbers took; a person reads them after the numbers."""

HEADINGS = {"bits_per_byte": "bits/byte", "tokens_per_second": "tokens/s"}
"""Columns whose heading is not simply their name with spaces."""


@dataclass(frozen=True)
class Readable:
    """A table as a person reads it: headings, rows of texts, and which columns hold numbers."""

    headings: list[str]
    rows: list[list[str]]
    numeric: list[bool]
    references: list[bool]
    """Whether a row is a reference: one that no run of ours gave, or the data themselves among samplers."""


def readable(frame: pl.DataFrame) -> Readable:
    """Each measurement and its standard error in one column, rounded together; empty columns are left out."""
    shown = list(_shown(frame))
    columns = [_cells(frame, name, error) for name, error in shown]
    return Readable(
        headings=[HEADINGS.get(name, name.replace("_", " ")) for name, _ in shown],
        rows=[list(row) for row in zip(*columns, strict=True)],
        numeric=[frame[name].dtype.is_numeric() for name, _ in shown],
        references=[row.get("run", "") is None or row.get("sampler") == DATA for row in frame.iter_rows(named=True)],
    )


def markdown(frame: pl.DataFrame) -> str:
    """The readable table in Markdown, columns aligned in the source as well, numbers to the right."""
    table = readable(frame)
    columns = list(zip(table.headings, *[[_escaped(cell) for cell in row] for row in table.rows], strict=True))
    widths = [max(map(len, column)) for column in columns]
    lines = [
        [
            cell.rjust(width) if numeric else cell.ljust(width)
            for cell, width, numeric in zip(row, widths, table.numeric, strict=True)
        ]
        for row in zip(*columns, strict=True)
    ]
    rule = [
        "-" * (width - 1) + ":" if numeric else "-" * width
        for width, numeric in zip(widths, table.numeric, strict=True)
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in [lines[0], rule, *lines[1:]])


def write_table(frame: pl.DataFrame, stem: Path) -> None:
    """Write STEM.csv and STEM.md; equal tables give equal bytes."""
    write_aside(stem.with_name(f"{stem.name}.csv"), frame.write_csv().encode("utf-8"))
    write_aside(stem.with_name(f"{stem.name}.md"), markdown(frame).encode("utf-8"))


def _shown(frame: pl.DataFrame) -> Iterator[tuple[str, str | None]]:
    """Column names, each with that of its standard error."""
    errors = {name: error for name in frame.columns if (error := ERROR_OF.get(name, f"{name}_stderr")) in frame.columns}
    details = DETAILS | BOUND_DETAILS if "value" in frame.columns else DETAILS
    last = LAST if "parameters" in frame.columns else ()
    for name in sorted(frame.columns, key=lambda name: (name not in FIRST, name in last)):
        empty = frame.height > 0 and frame[name].null_count() == frame.height
        if name not in details and name not in errors.values() and not empty:
            yield name, errors.get(name)


def _cells(frame: pl.DataFrame, name: str, error: str | None) -> list[str]:
    errors = frame[error].to_list() if error else [None] * frame.height
    return [_cell(value, stderr) for value, stderr in zip(frame[name].to_list(), errors, strict=True)]


def _cell(value: Any, stderr: float | None) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return measurement(value, stderr)


def _escaped(cell: str) -> str:
    return cell.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
