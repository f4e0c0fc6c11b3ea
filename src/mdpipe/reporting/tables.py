"""The tables of results: one row a (run, dataset, split), sorted, with reference rows beside those of the models.

A reference row is one whose `run` is empty: its `estimator` says what gave the number (`xz`, `png`, `unigram entropy`),
and it has no parameters, examples, draws or seed. In a sorted table it follows the models that it belongs to.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import polars as pl

from mdpipe.reporting.columns import (
    LIKELIHOOD,
    LIKELIHOOD_REFERENCE,
    SAMPLES,
    TRAINING,
    ZERO_SHOT,
    ZERO_SHOT_REFERENCE,
    Columns,
    checked_record,
)
from mdpipe.reporting.metrics import MetricsError

Record = Mapping[str, Any]

PARTS = ("reconstruction", "prior", "diffusion")
TEXT_ONLY = ("bits_per_byte", "bits_per_byte_stderr", "perplexity", "perplexity_stderr")


def likelihood_table(evaluations: Iterable[Record], encodings: Iterable[Record]) -> pl.DataFrame:
    """Held-out likelihoods: the records of metrics/evaluate, with the references of metrics/encode.

    References come only for the (dataset, split) pairs that some run was evaluated on. The columns are `LIKELIHOOD`.

    Raises:
        MetricsError: a record has missing, unknown or mistyped fields, or two records are about the same run.
    """
    rows = [_likelihood_row(record) for record in evaluations]
    _refuse_twins(rows, "metrics/evaluate", ("run", "dataset", "split"))
    wanted = {(row["dataset"], row["split"]) for row in rows}
    for encoding in encodings:
        dataset = encoding.get("dataset")
        for reference in _references(encoding, f"metrics/encode of dataset {dataset!r}"):
            fields = {name: LIKELIHOOD[name] for name in LIKELIHOOD if name in LIKELIHOOD_REFERENCE}
            where = f"metrics/encode of dataset {dataset!r}, reference {reference.get('estimator')!r}"
            row = checked_record(reference, fields, where, optional={"stderr", "bits_per_byte"})
            if (dataset, row["split"]) in wanted:
                rows.append({**row, "dataset": dataset, "modality": encoding.get("modality")})
    return _sorted(_frame(rows, LIKELIHOOD), ["dataset", "split"])


def zero_shot_table(zero_shots: Iterable[Record]) -> pl.DataFrame:
    """Likelihoods of text that a run was not trained on: the records of metrics/zero_shot. The columns are `ZERO_SHOT`.

    References that several runs give alike for one (source, tokenizer) become one row.

    Raises:
        MetricsError: a record has missing, unknown or mistyped fields, or two are about the same run and source.
    """
    rows, references = [], []
    for record in zero_shots:
        where = f"metrics/zero_shot of run {record.get('run')!r} on {record.get('source')!r}"
        fields = {name: value for name, value in record.items() if name != "references"}
        row = checked_record(fields, ZERO_SHOT, where, optional={"bits_per_char"})
        rows.append(row)
        for reference in _references(record, where):
            columns = {name: ZERO_SHOT[name] for name in ZERO_SHOT if name in ZERO_SHOT_REFERENCE}
            checked = checked_record(reference, columns, f"{where}, reference {reference.get('estimator')!r}")
            same = {name: row[name] for name in ("source", "tokenizer", "split")}
            per_byte = checked["value"] if checked["unit"] == "bits/byte" else None
            references.append({**same, **checked, "bits_per_byte": per_byte})
    _refuse_twins(rows, "metrics/zero_shot", ("run", "source", "split"))
    frame = pl.concat([_frame(rows, ZERO_SHOT), _frame(references, ZERO_SHOT).unique()])
    return _sorted(frame, ["source", "tokenizer", "split"])


def samples_table(samples: Iterable[Record]) -> pl.DataFrame:
    """What was drawn and how good it is: the records of metrics/sample.

    The columns are `SAMPLES` and then, by name, every other number that some record has.

    Raises:
        MetricsError: a record has missing or mistyped fields, or two records are about the same run.
    """
    return _open_table(samples, SAMPLES, "metrics/sample")


def training_table(trainings: Iterable[Record]) -> pl.DataFrame:
    """How the models were trained: the records of metrics/train, columns `TRAINING` and then any other number.

    Raises:
        MetricsError: a record has missing or mistyped fields, or two records are about the same run.
    """
    return _open_table(trainings, TRAINING, "metrics/train")


def _likelihood_row(record: Record) -> dict[str, Any]:
    where = f"metrics/evaluate of run {record.get('run')!r}"
    parts = record.get("parts", {})
    if not isinstance(parts, Mapping):
        raise MetricsError(f"{where}: parts should be a mapping with {', '.join(PARTS)}, not {parts!r}")
    flat = {**{name: value for name, value in record.items() if name != "parts"}, **parts}
    expected_of_images = {"stderr_draws", *PARTS, *TEXT_ONLY}
    optional = expected_of_images if record.get("modality") != "text" else expected_of_images - set(TEXT_ONLY)
    return checked_record(flat, LIKELIHOOD, where, optional=optional)


def _open_table(records: Iterable[Record], columns: Columns, where: str) -> pl.DataFrame:
    rows = [
        checked_record(
            record, columns, f"{where} of run {record.get('run')!r}", optional=record.keys() - columns, more=True
        )
        for record in records
    ]
    _refuse_twins(rows, where, ("run",))
    measured = sorted({name for row in rows for name in row} - columns.keys())
    return _frame(rows, {**columns, **dict.fromkeys(measured, pl.Float64)}).sort("run")


def _references(record: Record, where: str) -> Sequence[Record]:
    references = record.get("references", [])
    if not isinstance(references, list) or not all(isinstance(reference, Mapping) for reference in references):
        raise MetricsError(f"{where}: references should be a list of mappings, not {references!r}")
    return references


def _refuse_twins(rows: Sequence[Record], where: str, key: tuple[str, ...]) -> None:
    seen = set()
    for row in rows:
        name = tuple(row[field] for field in key)
        if name in seen:
            raise MetricsError(f"{where} has two records of {', '.join(map(str, name))}; remove the stale file")
        seen.add(name)


def _frame(rows: Sequence[Record], columns: Columns) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=columns)


def _sorted(frame: pl.DataFrame, groups: list[str]) -> pl.DataFrame:
    return frame.sort([*groups, "run", "estimator", "unit", "value"], nulls_last=True)
