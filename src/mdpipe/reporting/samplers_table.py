"""Samplers compared: how plausible their samples are to a judge, how varied, and what they cost, one row a sampler."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from mdpipe.data.artifacts.metrics import MetricsError
from mdpipe.reporting.columns import DATA, SAMPLERS, SPEEDS, checked_rows, refuse_twins

MEASURED_ON = ("run", "sampler", "steps", "parameters")
"""What a speed is known by: a network of another size has another one."""


def samplers_comparison(frames: Mapping[str, pl.DataFrame], speeds: pl.DataFrame | None = None) -> pl.DataFrame:
    """The frames of metrics/samplers, by run, in one; columns `SAMPLERS` and then `tokens_per_second`.

    Sorted by run and judge; the data come before the samplers by name, and those with few steps before those with many.

    Args:
        frames: `SAMPLERS`; `steps` is null for a sampler without a grid, and `network_calls` as well for the data.
        speeds: `SPEEDS`; what it says of other rows is left out, and what it does not say is null.

    Raises:
        MetricsError: columns are missing, unknown or mistyped, a frame tells of another run, or of a sampler twice.
    """
    rows = [row for run, frame in frames.items() for row in _checked_rows(run, frame)]
    measured = {} if speeds is None else _checked_speeds(speeds)
    for row in rows:
        row["tokens_per_second"] = measured.get(_measured_on(row))
    rows.sort(key=lambda row: (row["run"], row["judge"], row["sampler"] != DATA, row["sampler"], row["steps"] or 0))
    return pl.DataFrame(rows, schema={**SAMPLERS, "tokens_per_second": pl.Float64})


def _checked_rows(run: str, frame: pl.DataFrame) -> list[dict[str, Any]]:
    where = f"metrics/samplers/{run}.csv"
    rows = checked_rows(frame, SAMPLERS, where, nullable={"steps", "network_calls"})
    for row in rows:
        if row["run"] != run:
            raise MetricsError(f"{where}: run should be {run!r}, not {row['run']!r}")
        if row["sampler"] != DATA and (row["network_calls"] or 0) < 1:
            raise MetricsError(
                f"{where}: network_calls of sampler {row['sampler']!r} should be 1 at least, not {row['network_calls']}"
            )
    refuse_twins(rows, where, ("judge", "sampler", "steps"))
    return rows


def _checked_speeds(speeds: pl.DataFrame) -> dict[tuple[Any, ...], float]:
    where = "the table of measured speeds"
    rows = checked_rows(speeds, SPEEDS, where, nullable={"steps"})
    refuse_twins(rows, where, MEASURED_ON)
    return {_measured_on(row): row["tokens_per_second"] for row in rows}


def _measured_on(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[field] for field in MEASURED_ON)
