"""Metrics files: small sorted JSON, one per stage and run, tracked in git and shown by `dvc metrics show`.

Floats carry six significant digits: far below any reported standard error, and above the last bits, in which a sum may
differ between machines.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mdpipe.data.artifacts.files import atomic_write, read_json

SIGNIFICANT_DIGITS = 6


class MetricsError(ValueError):
    """A metrics file, or a record from one, is invalid."""


def write_metrics(path: Path, metrics: Mapping[str, Any]) -> None:
    """Write numbers, texts, and lists and mappings of them, as sorted JSON.

    Raises:
        MetricsError: a number is infinite or NaN, or a value has another type; the file is unchanged.
    """
    rounded = {key: _rounded(value, f"{path}: {key}") for key, value in metrics.items()}
    text = json.dumps(rounded, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    atomic_write(path, text.encode("utf-8"))


def read_metrics(path: Path) -> dict[str, Any]:
    """Read a file written by `write_metrics`.

    Raises:
        MetricsError: the file is missing or holds no JSON object.
    """
    return read_json(path, f"`dvc repro` makes the metrics of stage {path.parent.name!r} again", MetricsError)


def _rounded(value: Any, where: str) -> Any:
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            if not math.isfinite(value):
                raise MetricsError(f"{where} is {value}; a metric must be finite")
            return float(f"{value:.{SIGNIFICANT_DIGITS}g}") + 0.0  # the zero makes -0.0 a plain 0.0
        case Mapping():
            return {key: _rounded(entry, f"{where}.{key}") for key, entry in value.items()}
        case list() | tuple():
            return [_rounded(entry, f"{where}[{index}]") for index, entry in enumerate(value)]
    raise MetricsError(
        f"{where} is a {type(value).__name__}; a metric is a number, a text, or a list or mapping of them"
    )
