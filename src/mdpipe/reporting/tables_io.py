"""Tables as files: CSV with all six digits for programs, Markdown for people."""

from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from mdpipe.data.artifacts.files import atomic_write
from mdpipe.reporting.markdown import format_measurement, markdown_table, round_by_error
from mdpipe.reporting.schemas import DATA
from mdpipe.reporting.tables import without_replicates

ERROR_OF = {"value": "stderr", "seeds": ""}
"""Columns whose standard error is not named COLUMN_stderr; the error over seeds is a column of its own."""

CSV_ONLY = {
    *("modality", "stderr_mc", "reconstruction", "prior", "diffusion", "bits_per_char", "bytes", "seed", "revision"),
    *("license", "content_hash", "unk_tokens", "longest_document", "bits_per_word", "word_perplexity"),
    *("generative_perplexity", "generative_perplexity_per_sample", "distinct_1", "distinct_2", "distinct_3"),
    *("longest_run", "network_dtype", "sampling_dtype", "replicate_of", "feature_network_sha256", "k"),
    *("difference_stderr_evaluation", "difference_stderr_seeds"),
}
"""Columns that only the CSV file has."""

BOUNDS_CSV_ONLY = frozenset({"tokens", "words", "clusters", "clustered_by", "nfe", "mc_estimator"})
"""Columns that a table of bounds has only in the CSV file."""

FIRST = ("run", "estimator")
"""The columns that identify a row's numbers come first, next to each other."""

FIRST_ON_PAGE = ("run", "value", "unit", "estimator")
"""The first columns of a table of bounds on the page: a phone's screen is as wide as about three."""

LAST = ("examples", "num_mc_samples", "num_parameters")
"""The columns that give a model's size and cost come after its numbers."""

HEADINGS = {
    "seeds_stderr": "± over seeds",
    "bits_per_byte": "bits/byte",
    "bits_per_word": "bits/word",
    "tokens_per_second": "tokens/s",
    "nfe": "NFE",
    "num_mc_samples": "MC samples",
    "num_parameters": "parameters",
    "ngram_overlap": "n-gram overlap",
    "distinct_4": "distinct-4",
    "mauve": "MAUVE",
    "fid": "FID",
    "nearer_features": "nearer by features",
    "nearer_pixels": "nearer by pixels",
    "peak_mib": "peak MiB",
    "tflop": "TFLOP",
}
"""Headings that are not the column's name with spaces."""


@dataclass(frozen=True)
class DisplayTable:
    """A table to read: headings, rows of texts, and the kind of each column and row."""

    headings: list[str]
    rows: list[list[str]]
    is_numeric: list[bool]
    """One per column."""
    is_reference: list[bool]
    """One per row: True if it comes from no run, or is the held-out data among samplers."""
    values: list[list[Any]]
    """The value of every cell before it was rounded and became a text."""


def to_display(frame: pl.DataFrame, *, complete: bool = False) -> DisplayTable:
    """Put each measurement and its standard error into one column, rounded together; leave empty columns out.

    Args:
        frame: a table of results.
        complete: whether to keep the columns that otherwise only the CSV file has; the page does, and shows the
            values first.
    """
    names = _displayed_columns(frame, set() if complete else CSV_ONLY)
    return DisplayTable(
        headings=[HEADINGS.get(name, name.replace("_", " ")) for name in names],
        rows=[list(row) for row in zip(*(_cells(frame, name) for name in names), strict=True)],
        is_numeric=[frame[name].dtype.is_numeric() for name in names],
        is_reference=[row.get("run", "") is None or row.get("sampler") == DATA for row in frame.iter_rows(named=True)],
        values=[list(row) for row in frame.select(names).iter_rows()],
    )


def to_markdown(frame: pl.DataFrame) -> str:
    """Return the displayed table in Markdown, numbers aligned to the right."""
    table = to_display(frame)
    return markdown_table(table.headings, table.rows, table.is_numeric)


def write_table(frame: pl.DataFrame, stem: Path) -> None:
    """Write STEM.csv, and STEM.md without the single trainings of runs with seeds; equal tables give equal bytes."""
    atomic_write(stem.with_name(f"{stem.name}.csv"), frame.write_csv().encode("utf-8"))
    atomic_write(stem.with_name(f"{stem.name}.md"), to_markdown(without_replicates(frame)).encode("utf-8"))


def _displayed_columns(frame: pl.DataFrame, csv_only: Set[str]) -> list[str]:
    hidden = csv_only | {_error_of(name) for name in frame.columns}
    if csv_only and "value" in frame.columns:
        hidden |= BOUNDS_CSV_ONLY
    if frame.height:
        hidden |= {name for name in frame.columns if frame[name].null_count() == frame.height}
    last = LAST if "num_parameters" in frame.columns else ()
    first = FIRST if csv_only or not {"run", "value"} <= set(frame.columns) else FIRST_ON_PAGE
    place = {name: number for number, name in enumerate(first)}
    names = sorted(frame.columns, key=lambda name: (place.get(name, len(place)), name in last))
    return [name for name in names if name not in hidden]


def _cells(frame: pl.DataFrame, name: str) -> list[str]:
    if name == "difference":
        return _differences(frame)
    if name == "seeds_stderr":
        return ["" if value is None else round_by_error(value, value)[1] if value else "0" for value in frame[name]]
    error = _error_of(name)
    errors = frame[error].to_list() if error in frame.columns else [None] * frame.height
    return [
        "" if value is None else value if isinstance(value, str) else format_measurement(value, stderr)
        for value, stderr in zip(frame[name].to_list(), errors, strict=True)
    ]


def _differences(frame: pl.DataFrame) -> list[str]:
    """Return differences with their errors; one of single trainings has none, and the digits that evaluation fixes."""
    columns = frame.select("difference", "difference_stderr", "difference_stderr_evaluation").rows()
    return [
        ""
        if value is None
        else format_measurement(value, stderr)
        if stderr or not evaluation
        else round_by_error(value, evaluation)[0]
        for value, stderr, evaluation in columns
    ]


def _error_of(name: str) -> str:
    """Return the column of the standard errors of a column."""
    return ERROR_OF.get(name, f"{name}_stderr")
