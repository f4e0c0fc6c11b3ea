"""The columns of the tables of results: their types, and how people read them.

A record is what a stage wrote about one run, dataset or (run, source), or one of its `references`. A schema has the
fields of a record, or the columns of a table. CSV files have all columns with all six digits, for programs; Markdown
and the page are for people.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from mdpipe.data.artifacts.files import atomic_write
from mdpipe.reporting.markdown import Columns, format_measurement, format_rows, markdown_table, round_by_error

Record = Mapping[str, Any]
Schema = dict[str, type[pl.String | pl.Int64 | pl.Float64]]


def texts(*names: str) -> Schema:
    """Return columns of texts."""
    return dict.fromkeys(names, pl.String)


def integers(*names: str) -> Schema:
    """Return columns of whole numbers."""
    return dict.fromkeys(names, pl.Int64)


def numbers(*names: str) -> Schema:
    """Return columns of numbers."""
    return dict.fromkeys(names, pl.Float64)


def estimates(*names: str) -> Schema:
    """Return columns of numbers, each followed by its standard error."""
    return numbers(*(f"{name}{suffix}" for name in names for suffix in ("", "_stderr")))


TEXT_RATES = estimates("bits_per_byte", "bits_per_char", "perplexity")
WORD_RATES = estimates("bits_per_word", "word_perplexity")
TEXT_ONLY = {*TEXT_RATES, *WORD_RATES, "bytes", "words"}
BOUND = {
    **texts("split", "class_cond", "modality", "unit"),
    **numbers("value", "stderr", "stderr_mc", "reconstruction", "prior", "diffusion"),
    **TEXT_RATES,
    **WORD_RATES,
    **integers("examples", "clusters", "num_mc_samples", "nfe", "tokens", "bytes", "words"),
    **texts("estimator", "mc_estimator", "clustered_by"),
    **integers("num_parameters", "seed"),
}
LIKELIHOOD = {**texts("run", "dataset"), **BOUND}
ZERO_SHOT = {**texts("run", "source", "protocol", "dataset", "tokenizer"), **BOUND, **texts("content_hash")}
"""Columns of a row per run, source and protocol, the packing of the source; `content_hash` hashes its documents."""

HELD_OUT_COLUMNS, OTHER_TEXT_COLUMNS = ("dataset", "split"), ("source", "protocol", "dataset", "tokenizer", "split")
"""The columns that, with the run, identify a bound."""

COMPARISON = {
    **texts("baseline", "baseline_class_cond"),
    **numbers("difference", "difference_stderr", "difference_stderr_evaluation", "difference_stderr_seeds"),
    **texts("trainings"),
}
"""Bits of the run minus those of another run, in the unit of the row, from the differences example by example; null if
params.yaml asks for no comparison. `difference_stderr` covers trainings and evaluation, and is null for one training
each, as `difference_stderr_seeds` is. If `class_cond` and `baseline_class_cond` differ, the difference includes the
effect of the class labels."""

REFERENCE = {**texts("reference", "split", "unit"), **numbers("value", "stderr")}
"""A rate that comes from no model: `stderr` is null if it is exact."""

DATASET = {
    **texts("dataset", "modality", "source", "origin", "revision", "license", "tokenizer"),
    **integers("vocab_size", "seq_len"),
}
SPLIT = {
    **texts("split"),
    **integers("documents", "images", "classes", "examples", "tokens", "bytes", "characters", "words"),
    **integers("unk_tokens", "longest_document", "duplicates", "duplicates_of_training", "contamination_windows"),
    **numbers("ngram_overlap"),
    **texts("content_hash"),
}
"""`classes` counts the classes that have images in the split. `examples` are the units of evaluation: images, or
consecutive windows of `seq_len` tokens. `ngram_overlap` is the fraction of the split's `contamination_windows`, of 50
characters each, that also occur in the training text."""

SAMPLES = {
    **texts("run", "dataset", "modality"),
    **integers("samples", "steps"),
    **texts("time_grid"),
    **integers("nfe"),
    **texts("sampler"),
    **numbers("temperature"),
    **integers("top_k"),
    **numbers("top_p"),
    **texts("class_cond"),
    **numbers("guidance_scale"),
    **integers("seed"),
    **texts("unit"),
    **numbers("entropy"),
}
"""`unit` is the unit of the entropy. `steps` and `time_grid` are null for a sampler without a time grid."""

TRAINING = {
    **texts("run"),
    **integers("steps", "tokens", "num_parameters"),
    **numbers("final_loss"),
    **integers("final_loss_rows"),
    **texts("unit"),
}
"""`final_loss` is the mean of the last `final_loss_rows` rows of the training curve."""
BOUND_LOSS = "bound"
"""The training loss that is the bound of the evaluation; every other one has no unit of bits."""

NGRAM_STATISTICS = estimates("distinct_1", "distinct_2", "distinct_3", "distinct_4", "repetition", "longest_run")
SAMPLERS = {
    **texts("run", "dataset", "reference_model", "sampler"),
    **integers("steps"),
    **numbers("temperature"),
    **integers("nfe", "samples"),
    **texts("unit"),
    **estimates("bits", "generative_perplexity", "generative_perplexity_per_sample", "entropy", "entropy_per_sample"),
    **NGRAM_STATISTICS | numbers("mauve"),
    **texts("network_dtype", "sampling_dtype"),
    **integers("num_parameters"),
}
"""The columns of metrics/samplers: one row per sampler and reference model, and one for the held-out data as the
sampler `DATA`. Images have no n-grams. `mauve` is null without its package or with few samples."""

DATA = "data"

SPEEDS = texts("run", "sampler") | integers("steps", "num_parameters") | numbers("tokens_per_second")
SPEED_KEY = ("run", "sampler", "steps", "num_parameters")
"""Identifies a speed: a network of another size has another one."""

EXPONENTS = {**integers("token"), **texts("symbol"), **numbers("exponent")}
"""A learned schedule alpha_i(t) = 1 - t^w_i: the exponent w_i and the text or gray level of each token i."""

MASK_FRACTIONS = numbers("mask_fraction") | estimates("bits")
POSITIONS = integers("first", "last") | estimates("bits") | integers("tokens")
CALIBRATION = texts("mask_fraction") | numbers("confidence", "frequency", "stderr", "weight", "calibration_error")
"""Columns of the plots of the stage evaluate; a standard error is null if it is unknown."""

IMAGE_SETS = texts("images") | integers("num_images") | texts("reference") | integers("num_reference")
"""A set of images and the real images that it is compared with: samples, those of a further sampler by its name,
training, held_out or noise."""
IMAGE_MEASURES = estimates(
    *("fid", "precision", "recall", "inception_score", "class_accuracy", "nearer_features", "nearer_pixels")
)
IMAGE_RUN = {
    **texts(
        "run", "dataset", "split", "features", "feature_network", "feature_network_sha256", "sampler", "class_cond"
    ),
    **integers("k", "nfe", "seed"),
}
"""`split` is the held-out split. Only rows with equal `feature_network_sha256` and numbers of images compare."""
IMAGE_QUALITY = texts("run", "dataset") | IMAGE_SETS | IMAGE_MEASURES | IMAGE_RUN
NOT_OF_A_RUN = {"training", "held_out", "noise"}
"""Sets of images that are not samples of a run: the fields of a run are null in their rows."""

FILE = "its file"
"""The column of the file that has the numbers of a row, in tables and frames for the page; no run can have its name."""

COSTS = {
    **texts("stage"),
    **numbers("seconds", "cpu_seconds", "peak_mib"),
    **integers("tokens"),
    **numbers("tflop"),
}
"""Time and memory of a stage as measured, tokens and TFLOP (10^12 operations) as `mdpipe plan` estimates them."""

NULLABLE = frozenset({"class_cond", "top_k", "top_p", "guidance_scale", "steps", "time_grid", *WORD_RATES})
"""Fields of all schemas that are null where they do not apply."""

SEEDS = texts("replicate_of") | integers("seeds") | numbers("seeds_stderr")
"""The run whose training a row is of, the number of trainings that a row is the mean of, and the standard error of its
value over them: their standard deviation divided by the root of their number."""

ERROR_OF = {"value": "stderr", "seeds": ""}
"""Columns whose standard error is not named COLUMN_stderr; the error over seeds is a separate column."""

CSV_ONLY = {
    *("modality", "stderr_mc", "reconstruction", "prior", "diffusion", "bits_per_char", "bytes", "seed", "revision"),
    *("license", "content_hash", "unk_tokens", "longest_document", "bits_per_word", "word_perplexity"),
    *("generative_perplexity", "generative_perplexity_per_sample", "distinct_1", "distinct_2", "distinct_3"),
    *("longest_run", "network_dtype", "sampling_dtype", "replicate_of", "feature_network_sha256", "k"),
    *("difference_stderr_evaluation", "difference_stderr_seeds"),
}
"""Columns that only the CSV file has; they are the last ones on the page."""

BOUNDS_CSV_ONLY = frozenset({"tokens", "words", "clusters", "clustered_by", "nfe", "mc_estimator"})
"""Further ones in a table of bounds."""

FIRST = ("run", "estimator")
"""The columns that identify a row's numbers come first, next to each other."""

BOUND_FIRST = (
    *("run", "value", "seeds_stderr", "unit", "estimator", "source", "protocol", "dataset", "split", "class_cond"),
    *("bits_per_byte", "difference", "baseline", "trainings", "seeds"),
)
FIRST_ON_PAGE = ("run", "images", "reference", "fid", "sampler", "steps", "temperature", "bits")
"""The first columns of a table of bounds on the page, and of another one; a phone's screen shows about three."""

REFERENCE_NAMES = ("estimator", "images")
"""The columns that name a row without a run."""

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
    """True for a column of numbers."""
    is_reference: list[bool]
    """True for a row that comes from no run, or is the held-out data among samplers."""
    values: list[list[Any]]
    """The value of every cell before it was rounded and became a text."""
    files: list[str]
    """The file of each row, if the table has the column `FILE`."""


def to_display(frame: pl.DataFrame, *, complete: bool = False) -> DisplayTable:
    """Put each measurement and its standard error into one column, rounded together; leave empty columns out.

    Args:
        frame: A table of results.
        complete: True for the page, which has the values first, the columns that otherwise only the CSV file has
            last, and names of references in the column `run`.
    """
    names = _displayed_columns(frame, complete)
    is_reference = [row.get("run", "") is None or row.get("sampler") == DATA for row in frame.iter_rows(named=True)]
    if complete and "run" in names:
        reference = [name for name in REFERENCE_NAMES if name in frame.columns]
        frame = frame.with_columns(run=pl.coalesce("run", *reference))
    return DisplayTable(
        headings=[HEADINGS.get(name, name.replace("_", " ")) for name in names],
        rows=[list(row) for row in zip(*(_cells(frame, name) for name in names), strict=True)],
        is_numeric=[frame[name].dtype.is_numeric() for name in names],
        is_reference=is_reference,
        values=[list(row) for row in frame.select(names).iter_rows()],
        files=frame[FILE].to_list() if FILE in frame.columns else [],
    )


def to_markdown(frame: pl.DataFrame) -> str:
    """Return the displayed table in Markdown, numbers aligned to the right."""
    table = to_display(frame)
    return markdown_table(table.headings, table.rows, table.is_numeric)


def to_texts(table: pl.DataFrame, columns: Columns) -> pl.DataFrame:
    """Return the columns for people of a table, as texts; columns that are empty in all of its rows are left out."""
    rows = format_rows(table.iter_rows(named=True), columns)
    frame = pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String), orient="row")
    return frame.select(column for column in frame if column.is_empty() or any(column))


def without_replicates(table: pl.DataFrame) -> pl.DataFrame:
    """Return one row per run of params.yaml, and the references, without single trainings of runs with seeds."""
    return table.filter(pl.col("replicate_of").is_null()) if "replicate_of" in table.columns else table


def write_table(frame: pl.DataFrame, stem: Path, notes: Sequence[str] = ()) -> None:
    """Write STEM.csv, and STEM.md without the single trainings of runs with seeds; equal tables give equal bytes.

    The notes are paragraphs below the table in STEM.md.
    """
    atomic_write(stem.with_name(f"{stem.name}.csv"), frame.write_csv().encode("utf-8"))
    paragraphs = [to_markdown(without_replicates(frame)), *(f"{note}\n" for note in notes)]
    atomic_write(stem.with_name(f"{stem.name}.md"), "\n".join(paragraphs).encode("utf-8"))


def _displayed_columns(frame: pl.DataFrame, complete: bool) -> list[str]:
    is_bounds = "value" in frame.columns
    csv_only = CSV_ONLY | BOUNDS_CSV_ONLY if is_bounds else CSV_ONLY
    hidden = {FILE} | {_error_of(name) for name in frame.columns} | (set() if complete else csv_only)
    if frame.height:
        hidden |= {name for name in frame.columns if frame[name].null_count() == frame.height}
    last = LAST if "num_parameters" in frame.columns else ()
    first = (BOUND_FIRST if is_bounds else FIRST_ON_PAGE) if complete and "run" in frame.columns else FIRST
    position = {name: number for number, name in enumerate(first)}
    names = sorted(frame.columns, key=lambda name: (position.get(name, len(position)), name in csv_only, name in last))
    return [name for name in names if name not in hidden]


def _cells(frame: pl.DataFrame, name: str) -> list[str]:
    if name == "seeds_stderr":
        return ["" if value is None else round_by_error(value, value)[1] if value else "0" for value in frame[name]]
    error = _error_of(name)
    errors = frame[error].to_list() if error in frame.columns else [None] * frame.height
    # A difference of single trainings has no error, and the digits that evaluation fixes.
    digits = frame["difference_stderr_evaluation"].to_list() if name == "difference" else errors
    return [_cell(*measured) for measured in zip(frame[name].to_list(), errors, digits, strict=True)]


def _cell(value: str | float | None, stderr: float | None, digits: float | None) -> str:
    """Return a text, or a number rounded by its error, or else by the error that fixes its digits."""
    if value is None or isinstance(value, str):
        return value or ""
    return round_by_error(value, digits)[0] if digits and not stderr else format_measurement(value, stderr)


def _error_of(name: str) -> str:
    """Return the column of the standard errors of a column."""
    return ERROR_OF.get(name, f"{name}_stderr")
