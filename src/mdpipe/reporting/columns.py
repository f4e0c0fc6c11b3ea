"""The columns of the tables: which fields a metrics record has, of which type, and the check that it has them.

A record is what one metrics file holds, or one of the `references` in it.
"""

from collections.abc import Mapping, Sequence, Set
from typing import Any

import polars as pl

from mdpipe.data.artifacts.metrics import MetricsError

Columns = dict[str, type[pl.String | pl.Int64 | pl.Float64]]

BOUND: Columns = {
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
"""What is told of every likelihood."""

CONDITION = frozenset({"condition"})
"""Null where the model is given nothing besides the data."""

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
COMPARED: Columns = {
    "against": pl.String,
    "against_condition": pl.String,
    "difference": pl.Float64,
    "difference_stderr": pl.Float64,
}
"""How a run compares with another on the same examples; null where params.yaml asks for no comparison. A difference is
between conditions too where `condition` and `against_condition` differ."""

ZERO_SHOT: Columns = {"run": pl.String, "source": pl.String, "dataset": pl.String, "tokenizer": pl.String, **BOUND}

REFERENCE: Columns = {
    "reference": pl.String,
    "split": pl.String,
    "unit": pl.String,
    "value": pl.Float64,
    "stderr": pl.Float64,
}
"""A rate that no model gave: `stderr` is null where it is exact."""

DIFFERENCE: Columns = {
    "run": pl.String,
    "against": pl.String,
    "dataset": pl.String,
    "split": pl.String,
    "value": pl.Float64,
    "stderr": pl.Float64,
}
"""Bits of `run` minus bits of `against`, in the unit of the run's row, from the differences example by example."""

SAMPLES: Columns = {
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
"""`unit` is that of the entropy, which each record has besides."""

WITHOUT_GRID = frozenset({"steps", "grid"})
"""What a sampler that takes its times from elsewhere lacks."""

SETTINGS_OFF = frozenset({"top_k", "top_p", "guidance"})
"""Settings of sampling that are null where they are off."""

SAMPLERS: Columns = {
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
"""What metrics/samplers tells of each sampler, and of the held-out data themselves as the sampler `DATA`."""

DATA = "data"

SPEEDS: Columns = {
    "run": pl.String,
    "sampler": pl.String,
    "steps": pl.Int64,
    "parameters": pl.Int64,
    "tokens_per_second": pl.Float64,
}

EXPONENTS: Columns = {"token": pl.Int64, "symbol": pl.String, "exponent": pl.Float64}
"""A learned schedule alpha_i(t) = 1 - t^w_i: the exponent w_i of each token i, and how the token is written."""

TRAINING: Columns = {
    "run": pl.String,
    "steps": pl.Int64,
    "tokens": pl.Int64,
    "parameters": pl.Int64,
    "final_loss": pl.Float64,
    "final_loss_rows": pl.Int64,
    "unit": pl.String,
}
"""`final_loss` is the mean of the last `final_loss_rows` rows of the training curve."""


def checked_record(
    record: Mapping[str, Any],
    columns: Columns,
    where: str,
    *,
    optional: Set[str] = frozenset(),
    nullable: Set[str] = frozenset(),
    more: bool = False,
) -> dict[str, Any]:
    """The record with every field of the right type; `more` lets it have numbers under other names as well.

    Fields that are `optional` may be missing or null, those that are `nullable` must be there and may be null.

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
        name: _typed(value, columns.get(name, pl.Float64), f"{where}: {name}", may_be_null=name in optional | nullable)
        for name, value in record.items()
    }


def checked_rows(
    frame: pl.DataFrame, columns: Columns, where: str, *, nullable: Set[str] = frozenset()
) -> list[dict[str, Any]]:
    """The rows of a frame that has just these columns, in any order, with every value of the right type.

    Raises:
        MetricsError: columns are missing or unknown, or a value is of a wrong type; the message names `where`.
    """
    if set(frame.columns) != columns.keys():
        raise MetricsError(f"{where} has the columns {', '.join(frame.columns)}; they should be {', '.join(columns)}")
    return [checked_record(row, columns, where, optional=nullable) for row in frame.iter_rows(named=True)]


def refuse_twins(rows: Sequence[Mapping[str, Any]], where: str, key: tuple[str, ...]) -> None:
    """Pass if no two rows agree in all fields of `key`.

    Raises:
        MetricsError: two do; the message names `where` and what they agree in.
    """
    seen = set()
    for row in rows:
        name = tuple(row[field] for field in key)
        if name in seen:
            raise MetricsError(f"{where} has two records of {', '.join(map(str, name))}; remove the stale file")
        seen.add(name)


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
