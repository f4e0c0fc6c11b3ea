"""Metrics files: the small JSON that a stage leaves for each run, in git and shown by `dvc metrics show`.

Keys are sorted and floats carry six significant digits: far below any standard error that is reported, and above the
last bits, in which a sum may differ from one machine to the next.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mdpipe.data.artifacts.aside import write_aside

SIGNIFICANT_DIGITS = 6


class MetricsError(ValueError):
    """A metrics file, or a record from one, is not what it should be."""


def write_metrics(path: Path, metrics: Mapping[str, Any]) -> None:
    """Write numbers, texts, and lists and mappings of them, as sorted JSON.

    Raises:
        MetricsError: a number is infinite or undefined, or something is none of these types; the file is left alone.
    """
    rounded = {key: _rounded(value, f"{path}: {key}") for key, value in metrics.items()}
    text = json.dumps(rounded, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    write_aside(path, text.encode("utf-8"))


def read_metrics(path: Path) -> dict[str, Any]:
    """Read what `write_metrics` wrote.

    Raises:
        MetricsError: there is no such file, or it holds no JSON object.
    """
    try:
        metrics = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise MetricsError(f"{path} does not exist; {_cure(path)}") from None
    except ValueError as error:
        raise MetricsError(f"{path} is not JSON ({error}); {_cure(path)}") from None
    if not isinstance(metrics, dict):
        raise MetricsError(f"{path} should hold a JSON object, not {type(metrics).__name__}; {_cure(path)}")
    return metrics


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


def _cure(path: Path) -> str:
    return f"`dvc repro` makes the metrics of stage {path.parent.name!r} again"
