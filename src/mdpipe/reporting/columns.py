"""The columns of the tables: which fields a metrics record has, of which type, and the check that it has them.

A record is what one metrics file holds, or one of the `references` in it.
"""

from collections.abc import Mapping, Set
from typing import Any

import polars as pl

from mdpipe.reporting.metrics import MetricsError

Columns = dict[str, type[pl.String | pl.Int64 | pl.Float64]]

BOUND: Columns = {
    "split": pl.String,
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
"""What is told of every likelihood."""

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

LIKELIHOOD: Columns = {"run": pl.String, "dataset": pl.String, **BOUND}
ZERO_SHOT: Columns = {"run": pl.String, "source": pl.String, "dataset": pl.String, "tokenizer": pl.String, **BOUND}

REFERENCE: Columns = {
    "reference": pl.String,
    "split": pl.String,
    "unit": pl.String,
    "value": pl.Float64,
    "stderr": pl.Float64,
}
"""A rate that no model gave: `stderr` is null where it is exact."""

SAMPLES: Columns = {
    "run": pl.String,
    "dataset": pl.String,
    "modality": pl.String,
    "samples": pl.Int64,
    "steps": pl.Int64,
    "grid": pl.String,
    "network_calls": pl.Int64,
    "sampler": pl.String,
    "seed": pl.Int64,
}

TRAINING: Columns = {
    "run": pl.String,
    "steps": pl.Int64,
    "tokens": pl.Int64,
    "parameters": pl.Int64,
    "final_loss": pl.Float64,
    "unit": pl.String,
}


def checked_record(
    record: Mapping[str, Any], columns: Columns, where: str, *, optional: Set[str] = frozenset(), more: bool = False
) -> dict[str, Any]:
    """The record with every field of the right type; `more` lets it have numbers under other names as well.

    Raises:
        MetricsError: fields are missing, unknown or of a wrong type; the message names `where` and all of them.
    """
    missing = sorted(columns.keys() - record.keys() - optional)
    unknown = sorted(record.keys() - columns.keys()) if not more else []
    if missing or unknown:
        problems = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"has unknown {', '.join(unknown)}"] * bool(
            unknown
        )
        raise MetricsError(f"{where} {' and '.join(problems)}; its fields are {', '.join(columns)}")
    return {
        name: _typed(value, columns.get(name, pl.Float64), f"{where}: {name}", may_be_null=name in optional)
        for name, value in record.items()
    }


def _typed(value: Any, dtype: type[pl.DataType], where: str, *, may_be_null: bool) -> Any:
    if value is None and may_be_null:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if dtype is pl.String and isinstance(value, str) and value:
        return value
    if dtype is pl.Int64 and number and isinstance(value, int):
        return value
    if dtype is pl.Float64 and number:
        return value
    kind = {pl.String: "a text", pl.Int64: "a whole number", pl.Float64: "a number"}[dtype]
    raise MetricsError(f"{where} should be {kind}, not {value!r}")
