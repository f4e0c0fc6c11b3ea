"""The tables of results: one row per (run, dataset, split), sorted, with reference rows below the models.

A reference row has no `run`: its `estimator` names the source of the number (`xz`, `png`, `unigram`), and it has no
number of parameters or Monte Carlo samples, and no seed. In a sorted table it follows the models of the same data.

In a table with the columns `SEEDS`, the row of a run with `seeds` has the means over its trainings and no `seed`; the
rows of its trainings follow, and their `replicate_of` names the run. Other runs have one row, of one training.

Tables raise MetricsError for records with missing, unknown or mistyped fields.
"""

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from statistics import fmean, stdev
from typing import Any

import polars as pl

from mdpipe.data.artifacts.files import SIGNIFICANT_DIGITS, MetricsError
from mdpipe.reporting import schemas
from mdpipe.reporting.schemas import Record, Schema, integers, texts

NOT_AVERAGED = {"stderr_mc"}
"""Trainings share their Monte Carlo samples, so that this error of their mean is unknown."""


def check_record(record: Record, schema: Schema, where: str, optional: Set[str] = frozenset()) -> dict[str, Any]:
    """Return the record if every field has the type of the schema.

    Args:
        record: The fields by name.
        schema: The types of the fields; those in `NULLABLE` may be null, and `TEXT_ONLY` may be missing for images.
        where: Origin of the record, for the message.
        optional: Fields that may be missing or null.

    Raises:
        MetricsError: Fields are missing, unknown or of a wrong type.
    """
    required = schema.keys() - optional - (schemas.TEXT_ONLY if record.get("modality") == "image" else set())
    lists = {
        "lacks": sorted(required - record.keys()),
        "has unknown": sorted(record.keys() - schema.keys()),
        "has no value of": sorted(name for name in required - schemas.NULLABLE if record.get(name, 0) in (None, "")),
    }
    if problems := [f"{verb} {', '.join(names)}" for verb, names in lists.items() if names]:
        raise MetricsError(f"{where} {' and '.join(problems)}; its fields are {', '.join(schema)}")
    for name, value in record.items():
        try:
            pl.Series([value], dtype=schema[name])
        except TypeError as error:
            raise MetricsError(f"{where}: {name} has a wrong type: {error}".partition("\n")[0]) from None
    return dict(record)


def likelihood_table(
    evaluations: Iterable[Record], encodings: Iterable[Record], differences: Iterable[Record] = ()
) -> pl.DataFrame:
    """Return the held-out likelihoods: the records of stage evaluate, with the references of stage encode.

    Only the (dataset, split) pairs on which a run was evaluated have references.

    Args:
        evaluations: `LIKELIHOOD`.
        encodings: Records with a `dataset` and its `references`.
        differences: `run` and `COMPARISON` without the condition of the baseline; each goes to the row of its run.

    Returns:
        The columns `LIKELIHOOD`, then `COMPARISON`.
    """
    models = table_of_runs(evaluations, schemas.LIKELIHOOD, "evaluate")
    rates = []
    for encoding in encodings:
        dataset = encoding.get("dataset")
        rates += _check_rates(encoding, f"records/encode of dataset {dataset!r}", {"dataset": dataset})
    compared = models.join(_comparisons(models, differences), on="run", how="left")
    return _with_references(compared.select(*schemas.LIKELIHOOD, *schemas.COMPARISON), rates, schemas.HELD_OUT_COLUMNS)


def zero_shot_table(zero_shots: Iterable[Record]) -> pl.DataFrame:
    """Return the likelihoods of text from other sources: the records of stage zero_shot, columns `ZERO_SHOT`.

    A reference has one row per source, protocol and dataset whose tokenizer encoded it, however many runs were
    evaluated.
    """
    rows, rates = [], []
    for record in zero_shots:
        where = f"records/zero_shot of run {record.get('run')!r} on {record.get('source')!r}"
        if not (bounds := record.get("bounds")):
            raise MetricsError(f"{where} lacks bounds; `dvc repro` makes the file again")
        for bound in bounds:
            # The record's own results are those of its first bound, for the metrics file.
            fields = {
                name: value for name, value in {**record, **bound}.items() if name not in ("bounds", "references")
            }
            rows.append(row := check_record(fields, schemas.ZERO_SHOT, where))
            rates += _check_rates(bound, where, {field: row[field] for field in schemas.OTHER_TEXT_COLUMNS})
    return _with_references(pl.DataFrame(rows, schema=schemas.ZERO_SHOT), rates, schemas.OTHER_TEXT_COLUMNS)


def datasets_table(encodings: Iterable[Record]) -> pl.DataFrame:
    """Return one row per dataset and split: the records of stage encode; fields that do not apply are null."""
    rows = []
    for record in encodings:
        for name in (*schemas.DATASET, "splits"):
            if name not in record:
                where = f"records/encode of dataset {record.get('dataset')!r}"
                raise MetricsError(f"{where} has no {name}; `dvc repro` makes it again")
        dataset = {name: record[name] for name in schemas.DATASET}
        rows += [{**dataset, **counts, "split": split} for split, counts in record["splits"].items()]
    return pl.DataFrame(rows, schema=schemas.DATASET | schemas.SPLIT).sort("dataset", "split")


def table_of_runs(records: Iterable[Record], schema: Schema, stage: str) -> pl.DataFrame:
    """Return the records of a stage with one per run, such as train with the columns `TRAINING`, by run."""
    rows = [check_record(record, schema, f"records/{stage} of run {record.get('run')!r}") for record in records]
    return pl.DataFrame(rows, schema=schema).sort("run")


def image_quality_table(records: Iterable[Record]) -> pl.DataFrame:
    """Return the rows of the records of stage measure_images, columns `IMAGE_QUALITY`.

    The rows of real images and noise have no run, and one that several runs share is there once.
    """
    of_sampler = texts("sampler") | integers("nfe")  # What the rows of further samplers have themselves.
    schema = schemas.IMAGE_SETS | schemas.IMAGE_MEASURES | of_sampler
    rows = []
    for record in records:
        where = f"records/image_quality of run {record.get('run')!r}"
        fields = {name: value for name, value in record.items() if name != "rows"}
        run_fields = check_record(fields, schemas.IMAGE_RUN, where, optional={"class_cond"})
        shared_fields = run_fields | dict.fromkeys(("run", "sampler", "class_cond", "nfe", "seed"))
        for measured in record.get("rows", []):
            row = check_record(measured, schema, where, optional={*schemas.IMAGE_MEASURES, *of_sampler})
            rows.append((shared_fields if row["images"] in schemas.NOT_OF_A_RUN else run_fields) | row)
    table = pl.DataFrame(rows, schema=schemas.IMAGE_QUALITY)
    return table.unique(maintain_order=True).sort("dataset", "run", "images", "reference", nulls_last=True)


def samplers_table(frames: Mapping[str, pl.DataFrame], speeds: pl.DataFrame | None = None) -> pl.DataFrame:
    """Return the frames of metrics/samplers, by run, as one; columns `SAMPLERS` and then `tokens_per_second`.

    Sorted by run and reference model, then the held-out data before the samplers by name, steps and temperature.

    Args:
        frames: `SAMPLERS`; `nfe`, temperature and number formats are null for the data.
        speeds: `SPEEDS`; speeds of other rows are left out, and rows without a speed have null.
    """
    optional = {"nfe", "temperature", "network_dtype", "sampling_dtype", *schemas.NGRAM_STATISTICS, "mauve"}
    checked = [
        _check_frame(frame, schemas.SAMPLERS, f"metrics/samplers/{run}.csv", optional) for run, frame in frames.items()
    ]
    empty = pl.DataFrame(schema=schemas.SPEEDS)
    measured = empty if speeds is None else _check_frame(speeds, schemas.SPEEDS, "the table of measured speeds")
    return (
        pl.concat([pl.DataFrame(schema=schemas.SAMPLERS), *checked])
        .join(measured, on=schemas.SPEED_KEY, how="left", nulls_equal=True)
        .sort("run", "reference_model", pl.col("sampler") != schemas.DATA, "sampler", "steps", "temperature")
    )


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
        table: A table of bounds with a row for each training.
        replicates: The names of the trainings of each run, its own first.
        key: The columns that, with the run, identify a row.
        evaluation_errors: The standard error of the mean value over examples by run; without it the mean of the
            trainings' errors, an upper bound on the error of their mean.
    """
    run_of = {name: run for run, names in replicates.items() if len(names) > 1 for name in names}
    run, is_replicate = pl.col("run"), pl.col("replicate_of").is_not_null()
    rows = table.with_columns(
        replicate_of=run.replace_strict(run_of, default=None, return_dtype=pl.String),
        seeds=pl.when(run.is_not_null()).then(pl.lit(1, pl.Int64)),
        seeds_stderr=pl.lit(None, pl.Float64),
    )
    errors = evaluation_errors or {}
    by_run = rows.filter(is_replicate).partition_by("replicate_of", *key, maintain_order=True)
    means = [
        _mean_row(trainings, errors.get(trainings[0]["replicate_of"]))
        for trainings in (frame.rows(named=True) for frame in by_run)
    ]
    comparison = [pl.when(~is_replicate).then(name).alias(name) for name in schemas.COMPARISON if name in table.columns]
    at = table.columns.index("stderr") + 1
    order = {name: number for number, name in enumerate(run_of)}
    position = run.replace_strict(order, default=0, return_dtype=pl.Int64)
    with_means = pl.concat([rows.with_columns(comparison), pl.DataFrame(means, schema=rows.schema)])
    return round_floats(
        with_means.select(*table.columns[:at], *schemas.SEEDS, *table.columns[at:]).sort(
            [*key, pl.coalesce("replicate_of", "run"), is_replicate, position, "estimator"], nulls_last=True
        )
    )


def worse_than_unigram(likelihood: pl.DataFrame) -> list[str]:
    """Return a sentence per run with a higher value than the reference `unigram` on its data, in the same unit."""
    of_data = ["dataset", "split", "unit"]
    unigram = likelihood.filter(pl.col("run").is_null(), estimator="unigram").select(*of_data, unigram="value")
    worse = (
        likelihood.drop_nulls("run")
        .join(unigram, on=of_data, maintain_order="left")
        .filter(pl.col("value") > pl.col("unigram"))
    )
    note = (
        "{run} needs more bits than a model that only knows how frequent each symbol is: "
        "{value:.4g} {unit} on {dataset}, not {unigram:.4g}."
    )
    return [note.format_map(row) for row in worse.iter_rows(named=True)]


def round_floats(table: pl.DataFrame, columns: pl.Expr | None = None) -> pl.DataFrame:
    """Round all numbers, or those of some columns, as records are; NaN is null."""
    numbers = (pl.col(pl.Float64) if columns is None else columns).fill_nan(None)
    return table.with_columns(numbers.map_elements(lambda value: float(f"{value:.{SIGNIFICANT_DIGITS}g}"), pl.Float64))


def _check_frame(frame: pl.DataFrame, schema: Schema, where: str, optional: Set[str] = frozenset()) -> pl.DataFrame:
    """Return a frame read from CSV, where columns may have other types."""
    return pl.DataFrame([check_record(row, schema, where, optional) for row in frame.iter_rows(named=True)], schema)


def _comparisons(models: pl.DataFrame, differences: Iterable[Record]) -> pl.DataFrame:
    """Return the `COMPARISON` of each run that has one."""
    compared = pl.DataFrame([*differences], schema=texts("run") | schemas.COMPARISON)
    if duplicates := compared.filter(pl.col("run").is_duplicated())["run"].to_list():
        raise MetricsError(f"run {duplicates[0]!r} has two comparisons, and its row of the table shows one; remove one")
    baselines = models.select(baseline="run", baseline_class_cond="class_cond")
    return compared.drop("baseline_class_cond").join(baselines, on="baseline", how="left")


def _check_rates(record: Record, where: str, data: Record) -> list[dict[str, Any]]:
    """Return the references of a record, with the columns that say what data they are of."""
    references = record.get("references")
    if not isinstance(references, list) or not all(isinstance(reference, Mapping) for reference in references):
        raise MetricsError(f"{where}: references should be a list of mappings, not {references!r}")
    return [
        check_record(rate, schemas.REFERENCE, f"{where}, reference {rate.get('reference')!r}", {"stderr"}) | dict(data)
        for rate in references
    ]


def _with_references(models: pl.DataFrame, rates: Sequence[Record], key: tuple[str, ...]) -> pl.DataFrame:
    """Append one row per reference for the data that a model was evaluated on, and sort: models first, by name.

    A reference has the models' unit if it has a rate in it, and its rates in bits/byte and bits/word in other columns.
    """
    schema = {**schemas.REFERENCE, **texts(*key)}
    of_reference = [*key, "reference"]
    by_unit = pl.DataFrame(rates, schema=schema).unique([*of_reference, "unit"], keep="last", maintain_order=True)
    measured = models.unique(key, keep="last").select(*key, "modality", model_unit="unit")
    in_units = {
        f"bits_per_{unit}{suffix}": pl.col(name).filter(unit=f"bits/{unit}").first().over(of_reference)
        for unit in ("byte", "word")
        for name, suffix in (("value", ""), ("stderr", "_stderr"))
    }
    references = (
        by_unit.with_columns(**in_units)
        .join(measured, on=key)
        .sort(pl.col("unit") != pl.col("model_unit"), "unit")
        .unique(of_reference, keep="first", maintain_order=True)
        .rename({"reference": "estimator"})
        .drop("model_unit")
    )
    return pl.concat([models, references], how="diagonal").sort([*key, "run", "estimator"], nulls_last=True)


def _mean_row(trainings: Sequence[Mapping[str, Any]], stderr: float | None) -> dict[str, Any]:
    """Return the mean of the rows of a run's trainings; the difference of the first one is already that of all."""
    first = trainings[0]
    scale = 1.0 if stderr is None else stderr / fmean(row["stderr"] for row in trainings)
    mean: dict[str, Any] = {name: first[name] for name in first.keys() & schemas.COMPARISON.keys()}
    for name in first.keys() - mean.keys() - NOT_AVERAGED:
        values = [row[name] for row in trainings]
        if isinstance(first[name], float) and None not in values:
            mean[name] = fmean(values) * (scale if name.endswith("stderr") else 1)
        elif all(value == first[name] for value in values):
            mean[name] = first[name]
    seeds_stderr = stdev(row["value"] for row in trainings) / math.sqrt(len(trainings))
    identity = {"run": first["replicate_of"], "replicate_of": None, "seed": None, "seeds": len(trainings)}
    return {**mean, **identity, "seeds_stderr": seeds_stderr}
