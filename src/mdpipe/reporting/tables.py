"""The tables of results: one row a (run, dataset, split), sorted, with reference rows beside those of the models.

A reference row is one whose `run` is empty: its `estimator` says what gave the number (`xz`, `png`, `unigram`), and it
has no parameters, draws or seed. In a sorted table it follows the models that it belongs to.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

import polars as pl

from mdpipe.data.artifacts.metrics import MetricsError
from mdpipe.reporting.columns import (
    COMPARED,
    CONDITION,
    DIFFERENCE,
    LIKELIHOOD,
    REFERENCE,
    SAMPLES,
    SETTINGS_OFF,
    TEXT_ONLY,
    TRAINING,
    WITHOUT_GRID,
    ZERO_SHOT,
    Columns,
    checked_record,
    refuse_twins,
)

Record = Mapping[str, Any]

PARTS = ("reconstruction", "prior", "diffusion")


def likelihood_table(
    evaluations: Iterable[Record], encodings: Iterable[Record], differences: Iterable[Record] = ()
) -> pl.DataFrame:
    """Held-out likelihoods: the records of metrics/evaluate, with the references of metrics/encode.

    References come only for the (dataset, split) pairs that some run was evaluated on. A difference, with the fields of
    `DIFFERENCE`, stands in the row of its run. The columns are `LIKELIHOOD` and then `COMPARED`.

    Raises:
        MetricsError: a record has missing, unknown or mistyped fields, two records are about the same run, or a
            difference is about runs that were not both evaluated on its dataset and split.
    """
    key = ("dataset", "split")
    rows = [_bound_row(record, LIKELIHOOD, f"metrics/evaluate of run {record.get('run')!r}") for record in evaluations]
    refuse_twins(rows, "metrics/evaluate", ("run", *key))
    _put_differences(rows, differences, key)
    rates = []
    for encoding in encodings:
        dataset = encoding.get("dataset")
        where = f"metrics/encode of dataset {dataset!r}"
        rates += [{**rate, "dataset": dataset} for rate in _checked_rates(encoding, where)]
    return _sorted(_frame([*rows, *_reference_rows(rates, rows, key)], LIKELIHOOD | COMPARED), key)


def zero_shot_table(zero_shots: Iterable[Record]) -> pl.DataFrame:
    """Likelihoods of text that a run was not trained on: the records of metrics/zero_shot. The columns are `ZERO_SHOT`.

    A reference stands once for each source and dataset whose tokenizer encoded it, however many runs were measured.

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
        for rate in _checked_rates(record, where):
            if rate["split"] != row["split"]:
                raise MetricsError(
                    f"{where}: reference {rate['reference']!r} is of split {rate['split']!r}, and the bound of"
                    f" {row['split']!r}; `dvc repro` makes the file again"
                )
            rates.append({**rate, **{field: row[field] for field in key}})
    refuse_twins(rows, "metrics/zero_shot", ("run", *key))
    return _sorted(_frame([*rows, *_reference_rows(rates, rows, key)], ZERO_SHOT), key)


def samples_table(samples: Iterable[Record]) -> pl.DataFrame:
    """What was drawn and how good it is: the records of metrics/sample.

    The columns are `SAMPLES` and then, by name, every other number that some record has. `WITHOUT_GRID` may be null.

    Raises:
        MetricsError: a record has missing or mistyped fields, or two records are about the same run.
    """
    return _open_table(samples, SAMPLES, "metrics/sample", optional=WITHOUT_GRID, nullable=SETTINGS_OFF | CONDITION)


def training_table(trainings: Iterable[Record]) -> pl.DataFrame:
    """How the models were trained: the records of metrics/train, columns `TRAINING` and then any other number.

    Raises:
        MetricsError: a record has missing or mistyped fields, or two records are about the same run.
    """
    return _open_table(trainings, TRAINING, "metrics/train")


def _bound_row(record: Record, columns: Columns, where: str) -> dict[str, Any]:
    parts = record.get("parts")
    if not isinstance(parts, Mapping):
        raise MetricsError(f"{where}: parts should be a mapping with {', '.join(PARTS)}, not {parts!r}")
    flat = {**{name: value for name, value in record.items() if name != "parts"}, **parts}
    optional = TEXT_ONLY if record.get("modality") == "image" else frozenset()
    return checked_record(flat, columns, where, optional=optional, nullable=CONDITION)


def _put_differences(rows: Sequence[dict[str, Any]], differences: Iterable[Record], key: tuple[str, ...]) -> None:
    of_run = {tuple(row[field] for field in ("run", *key)): row for row in rows}
    checked = [
        checked_record(
            record, DIFFERENCE, f"the difference of runs {record.get('run')!r} and {record.get('against')!r}"
        )
        for record in differences
    ]
    refuse_twins(checked, "the likelihood's differences", ("run", *key))
    for record in checked:
        place = tuple(record[field] for field in key)
        for run in (record["run"], record["against"]):
            if (run, *place) not in of_run:
                raise MetricsError(
                    f"there is a difference of runs {record['run']!r} and {record['against']!r} on {', '.join(place)},"
                    f" on which run {run!r} was not evaluated"
                )
        of_run[record["run"], *place] |= {
            "against": record["against"],
            "against_condition": of_run[record["against"], *place]["condition"],
            "difference": record["value"],
            "difference_stderr": record["stderr"],
        }


def _checked_rates(record: Record, where: str) -> list[dict[str, Any]]:
    references = record.get("references")
    if not isinstance(references, list) or not all(isinstance(reference, Mapping) for reference in references):
        raise MetricsError(f"{where}: references should be a list of mappings, not {references!r}")
    return [
        checked_record(rate, REFERENCE, f"{where}, reference {rate.get('reference')!r}", optional=frozenset({"stderr"}))
        for rate in references
    ]


def _reference_rows(rates: Sequence[Record], models: Sequence[Record], key: tuple[str, ...]) -> list[dict[str, Any]]:
    """One row for each reference of what some model was measured on, in the model's unit if it has a rate in that.

    A rate in bits/byte is told besides.
    """
    groups: dict[tuple[str, ...], dict[str, Record]] = {}
    for rate in rates:
        groups.setdefault((*(rate[field] for field in key), rate["reference"]), {})[rate["unit"]] = rate
    beside = {tuple(model[field] for field in key): model for model in models}
    rows = []
    for (*place, reference), by_unit in groups.items():
        if (model := beside.get(tuple(place))) is None:
            continue
        shown = by_unit[min(by_unit, key=lambda unit: (unit != model["unit"], unit))]
        per_byte = by_unit.get("bits/byte", {})
        rows.append(
            {
                **{field: model[field] for field in (*key, "modality")},
                **{field: shown[field] for field in ("unit", "value", "stderr")},
                "bits_per_byte": per_byte.get("value"),
                "bits_per_byte_stderr": per_byte.get("stderr"),
                "estimator": reference,
            }
        )
    return rows


def _open_table(
    records: Iterable[Record],
    columns: Columns,
    where: str,
    *,
    optional: Set[str] = frozenset(),
    nullable: Set[str] = frozenset(),
) -> pl.DataFrame:
    rows = []
    for record in records:
        named = f"{where} of run {record.get('run')!r}"
        measured = record.keys() - columns
        rows.append(checked_record(record, columns, named, optional=optional | measured, nullable=nullable, more=True))
    refuse_twins(rows, where, ("run",))
    numbers = sorted({name for row in rows for name in row} - columns.keys())
    return _frame(rows, {**columns, **dict.fromkeys(numbers, pl.Float64)}).sort("run")


def _frame(rows: Sequence[Record], columns: Columns) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=columns)


def _sorted(frame: pl.DataFrame, key: tuple[str, ...]) -> pl.DataFrame:
    """By `key`, models by name first, then references by name."""
    return frame.sort([*key, "run", "estimator"], nulls_last=True)
