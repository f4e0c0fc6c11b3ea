"""Rows of results over seeds: one row with the mean over the trainings of a run, and the rows of each training.

In a table with the columns `SEEDS`, the row of a run with `seeds` has no `seed`; the rows of its trainings follow, and
their `replicate_of` names the run. Other runs have one row, of one training.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

import polars as pl

from mdpipe.data.artifacts.metrics import SIGNIFICANT_DIGITS
from mdpipe.reporting.tables import COMPARISON, Schema

SEEDS: Schema = {"replicate_of": pl.String, "seeds": pl.Int64, "seeds_stderr": pl.Float64}
"""The run whose training a row is of, the number of trainings that a row is the mean of, and the standard error of its
value over them: their standard deviation divided by the root of their number."""

NOT_AVERAGED = {"stderr_mc"}
"""Trainings share their Monte Carlo samples, so that this error of their mean is unknown."""


def with_means(
    table: pl.DataFrame,
    replicates: Mapping[str, Sequence[str]],
    key: Sequence[str],
    evaluation_errors: Mapping[str, float] | None = None,
) -> pl.DataFrame:
    """Return the table with the columns `SEEDS`, and with a row of means before the rows of a run's trainings.

    A mean row has the mean of each number, and other fields if they are equal in all trainings. Its standard errors are
    the evaluation's, all scaled by the factor of the value's. Means and differences are rounded as records are.

    Args:
        table: a table of bounds with a row for each training.
        replicates: the names of the trainings of each run, its own first.
        key: the columns that, with the run, identify a row.
        evaluation_errors: the standard error of the mean value over examples by run; without it the mean of the
            trainings' errors, an upper bound on the error of their mean.
    """
    rows: list[dict[str, Any]] = []
    run_of = {name: run for run, names in replicates.items() if len(names) > 1 for name in names}
    for row in table.iter_rows(named=True):
        run = run_of.get(row["run"])
        if run is None:
            rows.append({**row, "seeds": None if row["run"] is None else 1})
            continue
        place = [row[name] for name in key]
        if run == row["run"]:
            of_run = table.filter(pl.col("run").is_in(list(replicates[run]))).rows(named=True)
            trainings = [other for other in of_run if [other[name] for name in key] == place]
            rows.append(_mean_row(run, trainings, (evaluation_errors or {}).get(run)))
        rows.append({**row, **dict.fromkeys(COMPARISON.keys() & row.keys()), "replicate_of": run, "seeds": 1})
    order = {name: number for number, name in enumerate(run_of)}
    columns = list(table.schema.items())
    at = table.columns.index("stderr") + 1
    frame = pl.DataFrame([_rounded(row) for row in rows], schema=dict([*columns[:at], *SEEDS.items(), *columns[at:]]))
    position = pl.col("run").replace_strict(order, default=0, return_dtype=pl.Int64)
    by_run = pl.coalesce("replicate_of", "run")
    is_replicate = pl.col("replicate_of").is_not_null()
    return frame.sort([*key, by_run, is_replicate, position, "estimator"], nulls_last=True)


def without_replicates(table: pl.DataFrame) -> pl.DataFrame:
    """Return one row for each run of params.yaml, and the references: what a person reads."""
    return table.filter(pl.col("replicate_of").is_null()) if "replicate_of" in table.columns else table


def _rounded(row: Mapping[str, Any]) -> dict[str, Any]:
    """Round the numbers of a row to `SIGNIFICANT_DIGITS`; those of records already are."""
    return {
        name: float(f"{value:.{SIGNIFICANT_DIGITS}g}") if isinstance(value, float) else value
        for name, value in row.items()
    }


def _mean_row(run: str, trainings: Sequence[Mapping[str, Any]], stderr: float | None) -> dict[str, Any]:
    """Return the mean of the rows of a run's trainings."""
    scale = 1.0 if stderr is None else stderr / fmean(row["stderr"] for row in trainings)
    mean: dict[str, Any] = {}
    for name, first in trainings[0].items():
        values = [row[name] for row in trainings]
        if name in NOT_AVERAGED:
            mean[name] = None
        elif isinstance(first, float) and name not in COMPARISON and None not in values:
            mean[name] = fmean(values) * (scale if name.endswith("stderr") else 1)
        else:  # The difference is already that of all seeds.
            mean[name] = first if name in COMPARISON or all(value == first for value in values) else None
    seeds_stderr = stdev(row["value"] for row in trainings) / math.sqrt(len(trainings))
    return {**mean, "run": run, "seed": None, "seeds": len(trainings), "seeds_stderr": seeds_stderr}
