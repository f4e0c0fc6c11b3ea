"""The tables of results: one row per (run, dataset, split), sorted, with reference rows below the models.

A reference row has no `run`: its `estimator` names the source of the number (`xz`, `png`, `unigram`), and it has no
parameters, draws or seed. In a sorted table it follows the models of the same data.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

import polars as pl

from mdpipe.data.artifacts.metrics import MetricsError
from mdpipe.reporting.schemas import (
    CONDITION,
    DATA,
    DATASET,
    DIFFERENCE,
    LIKELIHOOD,
    REFERENCE,
    SAMPLERS,
    SAMPLES,
    SAMPLING_OPTIONS,
    SPEEDS,
    SPLIT,
    TEXT_ONLY,
    TIME_GRID,
    TRAINING,
    ZERO_SHOT,
    Schema,
    check_frame,
    check_record,
    check_unique,
)

Record = Mapping[str, Any]

PARTS = ("reconstruction", "prior", "diffusion")

SPEED_KEY = ("run", "sampler", "steps", "parameters")
"""Identifies a speed: a network of another size has another one."""


def likelihood_table(
    evaluations: Iterable[Record], encodings: Iterable[Record], differences: Iterable[Record] = ()
) -> pl.DataFrame:
    """Return the held-out likelihoods: the records of metrics/evaluate, with the references of metrics/encode.

    Only the (dataset, split) pairs on which a run was evaluated have references.

    Args:
        evaluations: `LIKELIHOOD`, with the `PARTS` of the bound in a mapping `parts`.
        encodings: records with a `dataset` and its `references`.
        differences: `DIFFERENCE`; each goes to the row of its run.

    Returns:
        The columns `LIKELIHOOD`, then `COMPARISON`.

    Raises:
        MetricsError: a record has missing, unknown or mistyped fields, two records are about the same run, or a
            difference is about runs that were not both evaluated on its dataset and split.
    """
    key = ("dataset", "split")
    rows = [_bound_row(record, LIKELIHOOD, f"metrics/evaluate of run {record.get('run')!r}") for record in evaluations]
    check_unique(rows, "metrics/evaluate", ("run", *key))
    models = pl.DataFrame(rows, schema=LIKELIHOOD)
    rates = [
        {**rate, "dataset": encoding.get("dataset")}
        for encoding in encodings
        for rate in _check_rates(encoding, f"metrics/encode of dataset {encoding.get('dataset')!r}")
    ]
    compared = models.join(_comparisons(models, differences, key), on=["run", *key], how="left")
    return _with_references(compared, rates, key)


def zero_shot_table(zero_shots: Iterable[Record]) -> pl.DataFrame:
    """Return the likelihoods of text from other sources: the records of metrics/zero_shot, columns `ZERO_SHOT`.

    A reference has one row per source and dataset whose tokenizer encoded it, however many runs were evaluated.

    Raises:
        MetricsError: a record has missing, unknown or mistyped fields, or two are about the same run and source.
    """
    key = ("source", "dataset", "tokenizer", "split")
    rows, rates = [], []
    for record in zero_shots:
        where = f"metrics/zero_shot of run {record.get('run')!r} on {record.get('source')!r}"
        bound = {name: value for name, value in record.items() if name != "references"}
        row = _bound_row(bound, ZERO_SHOT, where)
        rows.append(row)
        for rate in _check_rates(record, where):
            if rate["split"] != row["split"]:
                raise MetricsError(
                    f"{where}: reference {rate['reference']!r} is of split {rate['split']!r}, and the bound of"
                    f" {row['split']!r}; `dvc repro` makes the file again"
                )
            rates.append({**rate, **{field: row[field] for field in key}})
    check_unique(rows, "metrics/zero_shot", ("run", *key))
    return _with_references(pl.DataFrame(rows, schema=ZERO_SHOT), rates, key)


def datasets_table(encodings: Iterable[Record]) -> pl.DataFrame:
    """Return one row per dataset and split: the records of metrics/encode; fields that do not apply are null.

    Raises:
        MetricsError: a record lacks a field of `DATASET` or its splits.
    """
    rows = []
    for record in encodings:
        missing = [name for name in (*DATASET, "splits") if name not in record]
        if missing or not isinstance(record["splits"], Mapping):
            where = f"metrics/encode of dataset {record.get('dataset')!r}"
            raise MetricsError(f"{where} has no {missing[0] if missing else 'splits'}; `dvc repro` makes it again")
        about = {name: record[name] for name in DATASET}
        rows += [
            {**about, **{name: counts.get(name) for name in SPLIT}, "split": split}
            for split, counts in record["splits"].items()
        ]
    return pl.DataFrame(rows, schema=DATASET | SPLIT).sort("dataset", "split")


def samples_table(samples: Iterable[Record]) -> pl.DataFrame:
    """Return how samples were drawn, and their statistics: the records of metrics/sample.

    The columns are `SAMPLES` and then, by name, every other number that a record has. `TIME_GRID` may be null.

    Raises:
        MetricsError: a record has missing or mistyped fields, or two records are about the same run.
    """
    return _open_table(samples, SAMPLES, "metrics/sample", optional=TIME_GRID, nullable=SAMPLING_OPTIONS | CONDITION)


def training_table(trainings: Iterable[Record]) -> pl.DataFrame:
    """Return how models were trained: the records of metrics/train, columns `TRAINING` and then any other number.

    Raises:
        MetricsError: a record has missing or mistyped fields, or two records are about the same run.
    """
    return _open_table(trainings, TRAINING, "metrics/train")


def samplers_table(frames: Mapping[str, pl.DataFrame], speeds: pl.DataFrame | None = None) -> pl.DataFrame:
    """Return the frames of metrics/samplers, by run, as one; columns `SAMPLERS` and then `tokens_per_second`.

    Sorted by run and judge, then the held-out data before the samplers by name, then by steps.

    Args:
        frames: `SAMPLERS`; `steps` is null for a sampler without a time grid, and so is `network_calls` for the data.
        speeds: `SPEEDS`; speeds of other rows are left out, and rows without a speed have null.

    Raises:
        MetricsError: columns are missing, unknown or mistyped, a frame names another run, or a sampler twice.
    """
    checked = pl.concat(
        [pl.DataFrame(schema=SAMPLERS), *(_check_samplers(run, frame) for run, frame in frames.items())]
    )
    measured = pl.DataFrame(schema=SPEEDS) if speeds is None else speeds
    where = "the table of measured speeds"
    measured = check_frame(measured, SPEEDS, where, nullable={"steps"})
    check_unique(measured.rows(named=True), where, SPEED_KEY)
    return checked.join(measured, on=SPEED_KEY, how="left", nulls_equal=True).sort(
        "run", "judge", pl.col("sampler") != DATA, "sampler", "steps"
    )


def _check_samplers(run: str, frame: pl.DataFrame) -> pl.DataFrame:
    where = f"metrics/samplers/{run}.csv"
    checked = check_frame(frame, SAMPLERS, where, nullable={"steps", "network_calls"})
    rows = checked.rows(named=True)
    for row in rows:
        if row["run"] != run:
            raise MetricsError(f"{where}: run should be {run!r}, not {row['run']!r}")
        if row["sampler"] != DATA and (row["network_calls"] or 0) < 1:
            raise MetricsError(
                f"{where}: network_calls of sampler {row['sampler']!r} should be 1 at least, not {row['network_calls']}"
            )
    check_unique(rows, where, ("judge", "sampler", "steps"))
    return checked


def _bound_row(record: Record, schema: Schema, where: str) -> dict[str, Any]:
    parts = record.get("parts")
    if not isinstance(parts, Mapping):
        raise MetricsError(f"{where}: parts should be a mapping with {', '.join(PARTS)}, not {parts!r}")
    flat = {**{name: value for name, value in record.items() if name != "parts"}, **parts}
    optional = TEXT_ONLY if record.get("modality") == "image" else frozenset()
    return check_record(flat, schema, where, optional=optional, nullable=CONDITION)


def _comparisons(models: pl.DataFrame, differences: Iterable[Record], key: tuple[str, ...]) -> pl.DataFrame:
    """Return the `COMPARISON` of each (run, *key) that has one."""
    rows = [
        check_record(record, DIFFERENCE, f"the difference of runs {record.get('run')!r} and {record.get('against')!r}")
        for record in differences
    ]
    check_unique(rows, "the likelihood's differences", ("run", *key))
    evaluated = set(models.select("run", *key).rows())
    for row in rows:
        place = tuple(row[field] for field in key)
        for run in (row["run"], row["against"]):
            if (run, *place) not in evaluated:
                raise MetricsError(
                    f"there is a difference of runs {row['run']!r} and {row['against']!r} on {', '.join(place)},"
                    f" on which run {run!r} was not evaluated"
                )
    conditions = models.select(*key, against="run", against_condition="condition")
    joined = pl.DataFrame(rows, schema=DIFFERENCE).join(conditions, on=["against", *key], how="left")
    return joined.select("run", *key, "against", "against_condition", difference="value", difference_stderr="stderr")


def _check_rates(record: Record, where: str) -> list[dict[str, Any]]:
    references = record.get("references")
    if not isinstance(references, list) or not all(isinstance(reference, Mapping) for reference in references):
        raise MetricsError(f"{where}: references should be a list of mappings, not {references!r}")
    return [
        check_record(rate, REFERENCE, f"{where}, reference {rate.get('reference')!r}", optional={"stderr"})
        for rate in references
    ]


def _with_references(models: pl.DataFrame, rates: Sequence[Record], key: tuple[str, ...]) -> pl.DataFrame:
    """Append one row per reference for the data that a model was evaluated on, and sort: models first, by name.

    A reference has the models' unit if it has a rate in that unit, and its rate in bits/byte in a column of its own.
    """
    schema = {**REFERENCE, **dict.fromkeys(key, pl.String)}
    by_unit = pl.DataFrame(rates, schema=schema).unique([*key, "reference", "unit"], keep="last", maintain_order=True)
    measured = models.unique(key, keep="last").select(*key, "modality", model_unit="unit")
    per_byte = by_unit.filter(unit="bits/byte").select(
        *key, "reference", bits_per_byte="value", bits_per_byte_stderr="stderr"
    )
    references = (
        by_unit.join(measured, on=key)
        .sort(pl.col("unit") != pl.col("model_unit"), "unit")
        .unique([*key, "reference"], keep="first", maintain_order=True)
        .join(per_byte, on=[*key, "reference"], how="left")
        .rename({"reference": "estimator"})
        .drop("model_unit")
    )
    return pl.concat([models, references], how="diagonal").sort([*key, "run", "estimator"], nulls_last=True)


def _open_table(
    records: Iterable[Record],
    schema: Schema,
    where: str,
    *,
    optional: Set[str] = frozenset(),
    nullable: Set[str] = frozenset(),
) -> pl.DataFrame:
    rows = []
    for record in records:
        named = f"{where} of run {record.get('run')!r}"
        more = record.keys() - schema
        rows.append(check_record(record, schema, named, optional=optional | more, nullable=nullable, allow_more=True))
    check_unique(rows, where, ("run",))
    numbers = sorted({name for row in rows for name in row} - schema.keys())
    return pl.DataFrame(rows, schema={**schema, **dict.fromkeys(numbers, pl.Float64)}).sort("run")
