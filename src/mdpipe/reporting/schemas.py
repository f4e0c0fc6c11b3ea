"""Schemas of the tables: the fields of every metrics record with their types, and the checks that a record has them.

A record is the content of one metrics file, or one of its `references`.
"""

from collections.abc import Mapping, Sequence, Set
from typing import Any

import polars as pl

from mdpipe.data.artifacts.metrics import MetricsError

Schema = dict[str, type[pl.String | pl.Int64 | pl.Float64]]

BOUND: Schema = {
    "split": pl.String,
    "condition": pl.String,
    "modality": pl.String,
    "unit": pl.String,
    "value": pl.Float64,
    "stderr": pl.Float64,
    "stderr_draws": pl.Float64,
    "reconstruction": pl.Float64,
    "prior": pl.Float64,
    "diffusion": pl.Float64,
    "bits_per_byte": pl.Float64,
    "bits_per_byte_stderr": pl.Float64,
    "bits_per_char": pl.Float64,
    "bits_per_char_stderr": pl.Float64,
    "perplexity": pl.Float64,
    "perplexity_stderr": pl.Float64,
    "examples": pl.Int64,
    "draws": pl.Int64,
    "tokens": pl.Int64,
    "bytes": pl.Int64,
    "estimator": pl.String,
    "parameters": pl.Int64,
    "seed": pl.Int64,
}
"""The fields of every likelihood."""

CONDITION = frozenset({"condition"})
"""Null if the model is not conditioned."""

TEXT_ONLY = frozenset(
    {
        "bits_per_byte",
        "bits_per_byte_stderr",
        "bits_per_char",
        "bits_per_char_stderr",
        "perplexity",
        "perplexity_stderr",
        "bytes",
    }
)

LIKELIHOOD: Schema = {"run": pl.String, "dataset": pl.String, **BOUND}
COMPARISON: Schema = {
    "against": pl.String,
    "against_condition": pl.String,
    "difference": pl.Float64,
    "difference_stderr": pl.Float64,
}
"""Difference to another run on the same examples; null if params.yaml asks for no comparison. If `condition` and
`against_condition` differ, the difference includes the effect of the condition."""

ZERO_SHOT: Schema = {"run": pl.String, "source": pl.String, "dataset": pl.String, "tokenizer": pl.String, **BOUND}

REFERENCE: Schema = {
    "reference": pl.String,
    "split": pl.String,
    "unit": pl.String,
    "value": pl.Float64,
    "stderr": pl.Float64,
}
"""A rate that comes from no model: `stderr` is null if it is exact."""

DIFFERENCE: Schema = {
    "run": pl.String,
    "against": pl.String,
    "dataset": pl.String,
    "split": pl.String,
    "value": pl.Float64,
    "stderr": pl.Float64,
}
"""Bits of `run` minus bits of `against`, in the unit of the run's row, from the differences example by example."""

DATASET: Schema = {
    "dataset": pl.String,
    "modality": pl.String,
    "source": pl.String,
    "origin": pl.String,
    "revision": pl.String,
    "licence": pl.String,
    "tokenizer": pl.String,
    "vocabulary": pl.Int64,
    "length": pl.Int64,
}
"""`length` is the number of tokens per example."""

SPLIT: Schema = {
    "split": pl.String,
    "documents": pl.Int64,
    "images": pl.Int64,
    "classes": pl.Int64,
    "examples": pl.Int64,
    "tokens": pl.Int64,
    "bytes": pl.Int64,
    "characters": pl.Int64,
    "unknown": pl.Int64,
    "longest": pl.Int64,
    "duplicates": pl.Int64,
    "duplicates_of_training": pl.Int64,
    "contamination_windows": pl.Int64,
    "leaked": pl.Float64,
    "content": pl.String,
}
"""`classes` counts the classes that have images in the split. `examples` are the units of evaluation: images, or
consecutive windows of `length` tokens. `leaked` is the fraction of the split's `contamination_windows`, of 50
characters each, that also occur in the training text."""

SAMPLES: Schema = {
    "run": pl.String,
    "dataset": pl.String,
    "modality": pl.String,
    "samples": pl.Int64,
    "steps": pl.Int64,
    "grid": pl.String,
    "network_calls": pl.Int64,
    "sampler": pl.String,
    "temperature": pl.Float64,
    "top_k": pl.Int64,
    "top_p": pl.Float64,
    "condition": pl.String,
    "guidance": pl.Float64,
    "seed": pl.Int64,
    "unit": pl.String,
}
"""`unit` is the unit of the entropy, which each record has in addition."""

TIME_GRID = frozenset({"steps", "grid"})
"""Missing or null for a sampler without a time grid."""

SAMPLING_OPTIONS = frozenset({"top_k", "top_p", "guidance"})
"""Null if they are off."""

SAMPLERS: Schema = {
    "run": pl.String,
    "dataset": pl.String,
    "judge": pl.String,
    "sampler": pl.String,
    "steps": pl.Int64,
    "network_calls": pl.Int64,
    "samples": pl.Int64,
    "unit": pl.String,
    "bits": pl.Float64,
    "bits_stderr": pl.Float64,
    "entropy": pl.Float64,
    "entropy_stderr": pl.Float64,
    "parameters": pl.Int64,
}
"""The fields of metrics/samplers: one row per sampler, and one for the held-out data as the sampler `DATA`."""

DATA = "data"

SPEEDS: Schema = {
    "run": pl.String,
    "sampler": pl.String,
    "steps": pl.Int64,
    "parameters": pl.Int64,
    "tokens_per_second": pl.Float64,
}

EXPONENTS: Schema = {"token": pl.Int64, "symbol": pl.String, "exponent": pl.Float64}
"""A learned schedule alpha_i(t) = 1 - t^w_i: the exponent w_i and the text or gray level of each token i."""

TRAINING: Schema = {
    "run": pl.String,
    "steps": pl.Int64,
    "tokens": pl.Int64,
    "parameters": pl.Int64,
    "final_loss": pl.Float64,
    "final_loss_rows": pl.Int64,
    "unit": pl.String,
}
"""`final_loss` is the mean of the last `final_loss_rows` rows of the training curve."""

TYPE_NAMES = {pl.String: "a text", pl.Int64: "a whole number", pl.Float64: "a number"}


def check_record(
    record: Mapping[str, Any],
    schema: Schema,
    where: str,
    *,
    optional: Set[str] = frozenset(),
    nullable: Set[str] = frozenset(),
    allow_more: bool = False,
) -> dict[str, Any]:
    """Return the record if every field has the type of the schema.

    Args:
        record: the fields by name.
        schema: the types of the fields.
        where: where the record is from, for the message.
        optional: fields that may be missing or null.
        nullable: fields that must be there and may be null.
        allow_more: accept numbers under names that the schema does not have.

    Raises:
        MetricsError: fields are missing, unknown or of a wrong type.
    """
    missing = sorted(schema.keys() - record.keys() - optional)
    unknown = [] if allow_more else sorted(record.keys() - schema.keys())
    if missing or unknown:
        problems = [
            f"{verb} {', '.join(names)}" for verb, names in (("lacks", missing), ("has unknown", unknown)) if names
        ]
        raise MetricsError(f"{where} {' and '.join(problems)}; its fields are {', '.join(schema)}")
    for name, value in record.items():
        dtype = schema.get(name, pl.Float64)
        if not (_has_type(value, dtype) or (value is None and name in optional | nullable)):
            raise MetricsError(f"{where}: {name} should be {TYPE_NAMES[dtype]}, not {value!r}")
    return dict(record)


def check_frame(frame: pl.DataFrame, schema: Schema, where: str, *, nullable: Set[str] = frozenset()) -> pl.DataFrame:
    """Return a frame with the columns and types of the schema, if every value has its type.

    A frame read from CSV may have other types: a column without any number, or with whole numbers only.

    Raises:
        MetricsError: columns are missing or unknown, or a value is of a wrong type; the message names `where`.
    """
    if set(frame.columns) != schema.keys():
        raise MetricsError(f"{where} has the columns {', '.join(frame.columns)}; they should be {', '.join(schema)}")
    rows = [check_record(row, schema, where, nullable=nullable) for row in frame.iter_rows(named=True)]
    return pl.DataFrame(rows, schema=schema)


def check_unique(rows: Sequence[Mapping[str, Any]], where: str, key: tuple[str, ...]) -> None:
    """Raise MetricsError if two rows agree in all fields of `key`; the message names `where` and these values."""
    seen = set()
    for row in rows:
        name = tuple(row[field] for field in key)
        if name in seen:
            raise MetricsError(f"{where} has two records of {', '.join(map(str, name))}; remove the stale file")
        seen.add(name)


def _has_type(value: Any, dtype: type[pl.DataType]) -> bool:
    if dtype is pl.String:
        return isinstance(value, str) and bool(value)
    whole = isinstance(value, int) and not isinstance(value, bool)
    return whole or (dtype is pl.Float64 and isinstance(value, float))
