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

TYPE_NAMES = {pl.String: "a text", pl.Int64: "a whole number", pl.Float64: "a number"}

NOT_AVERAGED = {"stderr_mc"}
"""Trainings share their Monte Carlo samples, so that this error of their mean is unknown."""


def check_record(record: Record, schema: Schema, where: str, optional: Set[str] = frozenset()) -> dict[str, Any]:
    """Return the record if every field has the type of the schema.

    Args:
        record: the fields by name.
        schema: the types of the fields; those in `NULLABLE` may be null.
        where: where the record is from, for the message.
        optional: fields that may be missing or null.

    Raises:
        MetricsError: fields are missing, unknown or of a wrong type.
    """
    missing = sorted(schema.keys() - record.keys() - optional)
    unknown = sorted(record.keys() - schema.keys())
    if missing or unknown:
        problems = [
            f"{verb} {', '.join(names)}" for verb, names in (("lacks", missing), ("has unknown", unknown)) if names
        ]
        raise MetricsError(f"{where} {' and '.join(problems)}; its fields are {', '.join(schema)}")
    for name, value in record.items():
        dtype = schema[name]
        if not (_has_type(value, dtype) or (value is None and name in schemas.NULLABLE | optional)):
            raise MetricsError(f"{where}: {name} should be {TYPE_NAMES[dtype]}, not {value!r}")
    return dict(record)


def likelihood_table(
    evaluations: Iterable[Record], encodings: Iterable[Record], differences: Iterable[Record] = ()
) -> pl.DataFrame:
    """Return the held-out likelihoods: the records of stage evaluate, with the references of stage encode.

    Only the (dataset, split) pairs on which a run was evaluated have references.

    Args:
        evaluations: `LIKELIHOOD`.
        encodings: records with a `dataset` and its `references`.
        differences: `DIFFERENCE`; each goes to the row of its run.

    Returns:
        The columns `LIKELIHOOD`, then `COMPARISON`.
    """
    rows = [
        _bound_row(record, schemas.LIKELIHOOD, f"records/evaluate of run {record.get('run')!r}")
        for record in evaluations
    ]
    models = pl.DataFrame(rows, schema=schemas.LIKELIHOOD)
    rates = [
        {**rate, "dataset": encoding.get("dataset")}
        for encoding in encodings
        for rate in _check_rates(encoding, f"records/encode of dataset {encoding.get('dataset')!r}")
    ]
    compared = models.join(_comparisons(models, differences), on=["run", *schemas.HELD_OUT], how="left")
    return _with_references(compared, rates, schemas.HELD_OUT)


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
        # The record's own results are those of its first bound, for the metrics file.
        shared = {name: value for name, value in record.items() if name != "bounds" and name not in bounds[0]}
        for bound in bounds:
            row = _bound_row(
                {name: bound[name] for name in bound if name != "references"} | shared, schemas.ZERO_SHOT, where
            )
            rows.append(row)
            of_text = {field: row[field] for field in schemas.OTHER_TEXT}
            rates += [rate | of_text for rate in _check_rates(bound, where)]
    return _with_references(pl.DataFrame(rows, schema=schemas.ZERO_SHOT), rates, schemas.OTHER_TEXT)


def datasets_table(encodings: Iterable[Record]) -> pl.DataFrame:
    """Return one row per dataset and split: the records of stage encode; fields that do not apply are null."""
    rows = []
    for record in encodings:
        missing = [name for name in (*schemas.DATASET, "splits") if name not in record]
        if missing or not isinstance(record["splits"], Mapping):
            where = f"records/encode of dataset {record.get('dataset')!r}"
            raise MetricsError(f"{where} has no {missing[0] if missing else 'splits'}; `dvc repro` makes it again")
        dataset = {name: record[name] for name in schemas.DATASET}
        rows += [
            {**dataset, **{name: counts.get(name) for name in schemas.SPLIT}, "split": split}
            for split, counts in record["splits"].items()
        ]
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
        described = {name: value for name, value in record.items() if name != "rows"}
        of_run = check_record(described, schemas.IMAGE_RUN, where, optional={"class_cond"})
        of_none = of_run | dict.fromkeys(("run", "sampler", "class_cond", "nfe", "seed"))
        for measured in record.get("rows", []):
            row = check_record(measured, schema, where, optional={*schemas.IMAGE_MEASURES, *of_sampler})
            rows.append((of_none if row["images"] in schemas.NOT_OF_A_RUN else of_run) | row)
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
    rows = [
        row
        for run, frame in frames.items()
        for row in _check_frame(frame, schemas.SAMPLERS, f"metrics/samplers/{run}.csv", optional)
    ]
    of_speeds = [] if speeds is None else _check_frame(speeds, schemas.SPEEDS, "the table of measured speeds")
    measured = pl.DataFrame(of_speeds, schema=schemas.SPEEDS)
    return (
        pl.DataFrame(rows, schema=schemas.SAMPLERS)
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
        rows.append({**row, **dict.fromkeys(schemas.COMPARISON.keys() & row.keys()), "replicate_of": run, "seeds": 1})
    order = {name: number for number, name in enumerate(run_of)}
    columns = list(table.schema.items())
    at = table.columns.index("stderr") + 1
    frame = pl.DataFrame(
        [{name: rounded(value) for name, value in row.items()} for row in rows],
        schema=dict([*columns[:at], *schemas.SEEDS.items(), *columns[at:]]),
    )
    position = pl.col("run").replace_strict(order, default=0, return_dtype=pl.Int64)
    by_run = pl.coalesce("replicate_of", "run")
    is_replicate = pl.col("replicate_of").is_not_null()
    return frame.sort([*key, by_run, is_replicate, position, "estimator"], nulls_last=True)


def rounded(value: Any) -> Any:
    """Round a number as records are; NaN is null."""
    if not isinstance(value, float):
        return value
    return None if math.isnan(value) else float(f"{value:.{SIGNIFICANT_DIGITS}g}")


def _has_type(value: Any, dtype: type[pl.DataType]) -> bool:
    if dtype is pl.String:
        return isinstance(value, str) and bool(value)
    whole = isinstance(value, int) and not isinstance(value, bool)
    return whole or (dtype is pl.Float64 and isinstance(value, float))


def _check_frame(
    frame: pl.DataFrame, schema: Schema, where: str, optional: Set[str] = frozenset()
) -> list[dict[str, Any]]:
    """Return the rows of a frame read from CSV, where columns may have other types."""
    return [check_record(row, schema, where, optional) for row in frame.iter_rows(named=True)]


def _bound_row(record: Record, schema: Schema, where: str) -> dict[str, Any]:
    return check_record(record, schema, where, schemas.TEXT_ONLY if record.get("modality") == "image" else frozenset())


def _comparisons(models: pl.DataFrame, differences: Iterable[Record]) -> pl.DataFrame:
    """Return the `COMPARISON` of each run that has one."""
    compared = pl.DataFrame([*differences], schema=schemas.DIFFERENCE)
    if several := compared.filter(pl.col("run").is_duplicated())["run"].to_list():
        raise MetricsError(f"run {several[0]!r} has two comparisons, and its row of the table shows one; remove one")
    baselines = models.select(*schemas.HELD_OUT, baseline="run", baseline_class_cond="class_cond")
    names = {"value": "difference", **{name: f"difference_{name}" for name in schemas.DIFFERENCE_ERRORS}}
    return (
        compared.join(baselines, on=["baseline", *schemas.HELD_OUT], how="left")
        .rename(names)
        .select("run", *schemas.HELD_OUT, *schemas.COMPARISON)
    )


def _check_rates(record: Record, where: str) -> list[dict[str, Any]]:
    references = record.get("references")
    if not isinstance(references, list) or not all(isinstance(reference, Mapping) for reference in references):
        raise MetricsError(f"{where}: references should be a list of mappings, not {references!r}")
    return [
        check_record(rate, schemas.REFERENCE, f"{where}, reference {rate.get('reference')!r}", optional={"stderr"})
        for rate in references
    ]


def _with_references(models: pl.DataFrame, rates: Sequence[Record], key: tuple[str, ...]) -> pl.DataFrame:
    """Append one row per reference for the data that a model was evaluated on, and sort: models first, by name.

    A reference has the models' unit if it has a rate in it, and its rates in bits/byte and bits/word in other columns.
    """
    schema = {**schemas.REFERENCE, **texts(*key)}
    by_unit = pl.DataFrame(rates, schema=schema).unique([*key, "reference", "unit"], keep="last", maintain_order=True)
    measured = models.unique(key, keep="last").select(*key, "modality", model_unit="unit")
    per_byte, per_word = (
        by_unit.filter(unit=unit).select(*key, "reference", **{name: "value", f"{name}_stderr": "stderr"})
        for name, unit in (("bits_per_byte", "bits/byte"), ("bits_per_word", "bits/word"))
    )
    references = (
        by_unit.join(measured, on=key)
        .sort(pl.col("unit") != pl.col("model_unit"), "unit")
        .unique([*key, "reference"], keep="first", maintain_order=True)
        .join(per_byte, on=[*key, "reference"], how="left")
        .join(per_word, on=[*key, "reference"], how="left")
        .rename({"reference": "estimator"})
        .drop("model_unit")
    )
    return pl.concat([models, references], how="diagonal").sort([*key, "run", "estimator"], nulls_last=True)


def _mean_row(run: str, trainings: Sequence[Mapping[str, Any]], stderr: float | None) -> dict[str, Any]:
    """Return the mean of the rows of a run's trainings."""
    scale = 1.0 if stderr is None else stderr / fmean(row["stderr"] for row in trainings)
    mean: dict[str, Any] = {}
    for name, first in trainings[0].items():
        values = [row[name] for row in trainings]
        if name in NOT_AVERAGED:
            mean[name] = None
        elif isinstance(first, float) and name not in schemas.COMPARISON and None not in values:
            mean[name] = fmean(values) * (scale if name.endswith("stderr") else 1)
        else:  # The difference is already that of all seeds.
            mean[name] = first if name in schemas.COMPARISON or all(value == first for value in values) else None
    seeds_stderr = stdev(row["value"] for row in trainings) / math.sqrt(len(trainings))
    return {**mean, "run": run, "seed": None, "seeds": len(trainings), "seeds_stderr": seeds_stderr}
