"""The tables of results: one row per (run, dataset, split), sorted, with reference rows below the models.

A record is what a stage wrote about one run, dataset or (run, source), or one of its `references`. A schema has the
fields of a record, or the columns of a table, with their types.

A reference row has no `run`: its `estimator` names the source of the number (`xz`, `png`, `unigram`), and it has no
number of parameters or Monte Carlo samples, and no seed. In a sorted table it follows the models of the same data.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

import polars as pl

from mdpipe.data.artifacts.metrics import MetricsError

Record = Mapping[str, Any]
Schema = dict[str, type[pl.String | pl.Int64 | pl.Float64]]


def _texts(*names: str) -> Schema:
    return dict.fromkeys(names, pl.String)


def _integers(*names: str) -> Schema:
    return dict.fromkeys(names, pl.Int64)


def _numbers(*names: str) -> Schema:
    return dict.fromkeys(names, pl.Float64)


TEXT_RATES = _numbers(
    *("bits_per_byte", "bits_per_byte_stderr", "bits_per_char", "bits_per_char_stderr", "perplexity"),
    "perplexity_stderr",
)
WORD_RATES = _numbers("bits_per_word", "bits_per_word_stderr", "word_perplexity", "word_perplexity_stderr")
TEXT_ONLY = {*TEXT_RATES, *WORD_RATES, "bytes", "words"}
BOUND = {
    **_texts("split", "class_cond", "modality", "unit"),
    **_numbers("value", "stderr", "stderr_mc", "reconstruction", "prior", "diffusion"),
    **TEXT_RATES,
    **WORD_RATES,
    **_integers("examples", "clusters", "num_mc_samples", "nfe", "tokens", "bytes", "words"),
    **_texts("estimator", "mc_estimator", "clustered_by"),
    **_integers("num_parameters", "seed"),
}
LIKELIHOOD = {**_texts("run", "dataset"), **BOUND}
ZERO_SHOT = {**_texts("run", "source", "protocol", "dataset", "tokenizer"), **BOUND, **_texts("content_hash")}
"""One row per run, source and protocol, the packing of the source; `content_hash` is of the source's documents."""

HELD_OUT, OTHER_TEXT = ("dataset", "split"), ("source", "protocol", "dataset", "tokenizer", "split")
"""The columns that say what a bound is of, with its run."""

DIFFERENCE_ERRORS = _numbers("stderr", "stderr_evaluation", "stderr_seeds")
COMPARISON = _texts("baseline", "baseline_class_cond") | _numbers("difference")
COMPARISON |= _numbers(*(f"difference_{name}" for name in DIFFERENCE_ERRORS)) | _texts("trainings")
"""Difference to another run on the same examples; null if params.yaml asks for no comparison. If `class_cond` and
`baseline_class_cond` differ, the difference includes the effect of the class labels."""

DIFFERENCE = _texts("run", "baseline", "dataset", "split", "trainings") | _numbers("value") | DIFFERENCE_ERRORS
"""Bits of `run` minus bits of `baseline`, in the unit of the run's row, from the differences example by example.
`stderr` covers trainings and evaluation, and is null for one training each, as `stderr_seeds` is."""

REFERENCE = {**_texts("reference", "split", "unit"), **_numbers("value", "stderr")}
"""A rate that comes from no model: `stderr` is null if it is exact."""

DATASET = {
    **_texts("dataset", "modality", "source", "origin", "revision", "license", "tokenizer"),
    **_integers("vocab_size", "seq_len"),
}
SPLIT = {
    **_texts("split"),
    **_integers("documents", "images", "classes", "examples", "tokens", "bytes", "characters", "words"),
    **_integers("unk_tokens", "longest_document", "duplicates", "duplicates_of_training", "contamination_windows"),
    **_numbers("ngram_overlap"),
    **_texts("content_hash"),
}
"""`classes` counts the classes that have images in the split. `examples` are the units of evaluation: images, or
consecutive windows of `seq_len` tokens. `ngram_overlap` is the fraction of the split's `contamination_windows`, of 50
characters each, that also occur in the training text."""

SAMPLES = {
    **_texts("run", "dataset", "modality"),
    **_integers("samples", "steps"),
    **_texts("time_grid"),
    **_integers("nfe"),
    **_texts("sampler"),
    **_numbers("temperature"),
    **_integers("top_k"),
    **_numbers("top_p"),
    **_texts("class_cond"),
    **_numbers("guidance_scale"),
    **_integers("seed"),
    **_texts("unit"),
    **_numbers("entropy"),
}
"""`unit` is the unit of the entropy. `steps` and `time_grid` are null for a sampler without a time grid."""

TRAINING = {
    **_texts("run"),
    **_integers("steps", "tokens", "num_parameters"),
    **_numbers("final_loss"),
    **_integers("final_loss_rows"),
    **_texts("unit"),
}
"""`final_loss` is the mean of the last `final_loss_rows` rows of the training curve."""

NGRAM_STATISTICS = _numbers(
    *(f"distinct_{n}{suffix}" for n in (1, 2, 3, 4) for suffix in ("", "_stderr")),
    *("repetition", "repetition_stderr", "longest_run", "longest_run_stderr"),
)
SAMPLERS = {
    **_texts("run", "dataset", "reference_model", "sampler"),
    **_integers("steps"),
    **_numbers("temperature"),
    **_integers("nfe", "samples"),
    **_texts("unit"),
    **_numbers("bits", "bits_stderr", "generative_perplexity", "generative_perplexity_stderr"),
    **_numbers("generative_perplexity_per_sample", "generative_perplexity_per_sample_stderr"),
    **_numbers("entropy", "entropy_stderr", "entropy_per_sample", "entropy_per_sample_stderr"),
    **NGRAM_STATISTICS | _numbers("mauve"),
    **_texts("network_dtype", "sampling_dtype"),
    **_integers("num_parameters"),
}
"""The columns of metrics/samplers: one row per sampler and reference model, and one for the held-out data as the
sampler `DATA`. Images have no n-grams. `mauve` is null without its package or with few samples."""

DATA = "data"

SPEEDS = _texts("run", "sampler") | _integers("steps", "num_parameters") | _numbers("tokens_per_second")
SPEED_KEY = ("run", "sampler", "steps", "num_parameters")
"""Identifies a speed: a network of another size has another one."""

EXPONENTS = {**_integers("token"), **_texts("symbol"), **_numbers("exponent")}
"""A learned schedule alpha_i(t) = 1 - t^w_i: the exponent w_i and the text or gray level of each token i."""

COSTS = {
    **_texts("stage"),
    **_numbers("seconds", "cpu_seconds", "peak_mib"),
    **_integers("tokens"),
    **_numbers("tflop"),
}
"""Time and memory of a stage as measured, tokens and TFLOP (10^12 operations) as `mdpipe plan` estimates them."""

NULLABLE = frozenset({"class_cond", "top_k", "top_p", "guidance_scale", "steps", "time_grid", *WORD_RATES})
"""Fields of all schemas that are null where they do not apply."""

TYPE_NAMES = {pl.String: "a text", pl.Int64: "a whole number", pl.Float64: "a number"}


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
        if not (_has_type(value, dtype) or (value is None and name in NULLABLE | optional)):
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

    Raises:
        MetricsError: a record has missing, unknown or mistyped fields, two records are about the same run, or a
            difference is about runs that were not both evaluated on its dataset and split.
    """
    rows = [_bound_row(record, LIKELIHOOD, f"records/evaluate of run {record.get('run')!r}") for record in evaluations]
    _check_unique(rows, "records/evaluate", ("run", *HELD_OUT))
    models = pl.DataFrame(rows, schema=LIKELIHOOD)
    rates = [
        {**rate, "dataset": encoding.get("dataset")}
        for encoding in encodings
        for rate in _check_rates(encoding, f"records/encode of dataset {encoding.get('dataset')!r}")
    ]
    compared = models.join(_comparisons(models, differences, HELD_OUT), on=["run", *HELD_OUT], how="left")
    return _with_references(compared, rates, HELD_OUT)


def zero_shot_table(zero_shots: Iterable[Record]) -> pl.DataFrame:
    """Return the likelihoods of text from other sources: the records of stage zero_shot, columns `ZERO_SHOT`.

    A reference has one row per source, protocol and dataset whose tokenizer encoded it, however many runs were
    evaluated.

    Raises:
        MetricsError: a record has missing, unknown or mistyped fields, or two are about the same run and source.
    """
    rows, rates = [], []
    for record in zero_shots:
        where = f"records/zero_shot of run {record.get('run')!r} on {record.get('source')!r}"
        if not (bounds := record.get("bounds")):
            raise MetricsError(f"{where} lacks bounds; `dvc repro` makes the file again")
        # The record's own results are those of its first bound, for the metrics file.
        shared = {name: value for name, value in record.items() if name != "bounds" and name not in bounds[0]}
        for bound in bounds:
            row = _bound_row({name: bound[name] for name in bound if name != "references"} | shared, ZERO_SHOT, where)
            rows.append(row)
            for rate in _check_rates(bound, where):
                if rate["split"] != row["split"]:
                    raise MetricsError(
                        f"{where}: reference {rate['reference']!r} is of split {rate['split']!r}, and the bound of"
                        f" {row['split']!r}; `dvc repro` makes the file again"
                    )
                rates.append({**rate, **{field: row[field] for field in OTHER_TEXT}})
    _check_unique(rows, "records/zero_shot", ("run", *OTHER_TEXT))
    return _with_references(pl.DataFrame(rows, schema=ZERO_SHOT), rates, OTHER_TEXT)


def datasets_table(encodings: Iterable[Record]) -> pl.DataFrame:
    """Return one row per dataset and split: the records of stage encode; fields that do not apply are null.

    Raises:
        MetricsError: a record lacks a field of `DATASET` or its splits.
    """
    rows = []
    for record in encodings:
        missing = [name for name in (*DATASET, "splits") if name not in record]
        if missing or not isinstance(record["splits"], Mapping):
            where = f"records/encode of dataset {record.get('dataset')!r}"
            raise MetricsError(f"{where} has no {missing[0] if missing else 'splits'}; `dvc repro` makes it again")
        dataset = {name: record[name] for name in DATASET}
        rows += [
            {**dataset, **{name: counts.get(name) for name in SPLIT}, "split": split}
            for split, counts in record["splits"].items()
        ]
    return pl.DataFrame(rows, schema=DATASET | SPLIT).sort("dataset", "split")


def samples_table(samples: Iterable[Record]) -> pl.DataFrame:
    """Return how samples were generated, and their statistics: the records of stage sample, columns `SAMPLES`.

    Raises:
        MetricsError: a record has missing, unknown or mistyped fields, or two records are about the same run.
    """
    return _table_of_runs(samples, SAMPLES, "records/sample")


def training_table(trainings: Iterable[Record]) -> pl.DataFrame:
    """Return how models were trained: the records of stage train, columns `TRAINING`.

    Raises:
        MetricsError: a record has missing, unknown or mistyped fields, or two records are about the same run.
    """
    return _table_of_runs(trainings, TRAINING, "records/train")


def samplers_table(frames: Mapping[str, pl.DataFrame], speeds: pl.DataFrame | None = None) -> pl.DataFrame:
    """Return the frames of metrics/samplers, by run, as one; columns `SAMPLERS` and then `tokens_per_second`.

    Sorted by run and reference model, then the held-out data before the samplers by name, steps and temperature.

    Args:
        frames: `SAMPLERS`; `nfe`, temperature and number formats are null for the data.
        speeds: `SPEEDS`; speeds of other rows are left out, and rows without a speed have null.

    Raises:
        MetricsError: columns are missing, unknown or mistyped, a frame names another run, or a sampler twice.
    """
    checked = [_check_samplers(run, frame) for run, frame in frames.items()]
    where = "the table of measured speeds"
    measured = _check_frame(pl.DataFrame(schema=SPEEDS) if speeds is None else speeds, SPEEDS, where)
    _check_unique(measured.rows(named=True), where, SPEED_KEY)
    return (
        pl.concat([pl.DataFrame(schema=SAMPLERS), *checked])
        .join(measured, on=SPEED_KEY, how="left", nulls_equal=True)
        .sort("run", "reference_model", pl.col("sampler") != DATA, "sampler", "steps", "temperature")
    )


def _has_type(value: Any, dtype: type[pl.DataType]) -> bool:
    if dtype is pl.String:
        return isinstance(value, str) and bool(value)
    whole = isinstance(value, int) and not isinstance(value, bool)
    return whole or (dtype is pl.Float64 and isinstance(value, float))


def _check_frame(frame: pl.DataFrame, schema: Schema, where: str, optional: Set[str] = frozenset()) -> pl.DataFrame:
    """Return the frame with the types of the schema; one read from CSV may have others."""
    if set(frame.columns) != schema.keys():
        raise MetricsError(f"{where} has the columns {', '.join(frame.columns)}; they should be {', '.join(schema)}")
    rows = [check_record(row, schema, where, optional) for row in frame.iter_rows(named=True)]
    return pl.DataFrame(rows, schema=schema)


def _check_unique(rows: Sequence[Record], where: str, key: tuple[str, ...]) -> None:
    seen = set()
    for row in rows:
        name = tuple(row[field] for field in key)
        if name in seen:
            raise MetricsError(f"{where} has two records of {', '.join(map(str, name))}; remove the stale file")
        seen.add(name)


def _check_samplers(run: str, frame: pl.DataFrame) -> pl.DataFrame:
    where = f"metrics/samplers/{run}.csv"
    of_samplers = {"nfe", "temperature", "network_dtype", "sampling_dtype"}
    checked = _check_frame(frame, SAMPLERS, where, optional={*of_samplers, *NGRAM_STATISTICS, "mauve"})
    for row in (rows := checked.rows(named=True)):
        if row["run"] != run:
            raise MetricsError(f"{where}: run should be {run!r}, not {row['run']!r}")
        if row["sampler"] != DATA and (row["nfe"] or 0) < 1:
            raise MetricsError(f"{where}: nfe of sampler {row['sampler']!r} should be 1 at least, not {row['nfe']}")
    _check_unique(rows, where, ("reference_model", "sampler", "steps", "temperature"))
    return checked


def _bound_row(record: Record, schema: Schema, where: str) -> dict[str, Any]:
    return check_record(record, schema, where, TEXT_ONLY if record.get("modality") == "image" else frozenset())


def _table_of_runs(records: Iterable[Record], schema: Schema, where: str) -> pl.DataFrame:
    rows = [check_record(record, schema, f"{where} of run {record.get('run')!r}") for record in records]
    _check_unique(rows, where, ("run",))
    return pl.DataFrame(rows, schema=schema).sort("run")


def _comparisons(models: pl.DataFrame, differences: Iterable[Record], key: tuple[str, ...]) -> pl.DataFrame:
    """Return the `COMPARISON` of each (run, *key) that has one."""
    rows = []
    for record in differences:
        where = f"the difference of runs {record.get('run')!r} and {record.get('baseline')!r}"
        rows.append(check_record(record, DIFFERENCE, where, DIFFERENCE_ERRORS.keys() - {"stderr_evaluation"}))
    _check_unique(rows, "the likelihood's differences", ("run", *key))
    evaluated = set(models.select("run", *key).rows())
    for row in rows:
        data = tuple(row[field] for field in key)
        for run in (row["run"], row["baseline"]):
            if (run, *data) not in evaluated:
                raise MetricsError(
                    f"there is a difference of runs {row['run']!r} and {row['baseline']!r} on {', '.join(data)},"
                    f" on which run {run!r} was not evaluated"
                )
    baselines = models.select(*key, baseline="run", baseline_class_cond="class_cond")
    compared = pl.DataFrame(rows, schema=DIFFERENCE).join(baselines, on=["baseline", *key], how="left")
    names = {"value": "difference", **{name: f"difference_{name}" for name in DIFFERENCE_ERRORS}}
    return compared.rename(names).select("run", *key, *COMPARISON)


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

    A reference has the models' unit if it has a rate in it, and its rates in bits/byte and bits/word in other columns.
    """
    schema = {**REFERENCE, **_texts(*key)}
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
