"""Records of stages as sorted JSON, and tables as CSV, with stable bytes.

A record has results and what describes them: names, units, settings, counts and details. The results go into a metrics
file of DVC, which git tracks; everything else goes into a second file, a cached output of DVC. DVC shows every key of a
metrics file as a column, so metrics files have only the headline results, under the same names in every stage.

Floats have six significant digits: far finer than any reported standard error, and coarse enough to hide the last bits,
in which a sum may differ between machines.
"""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mdpipe.data.artifacts.files import atomic_write, read_json

SIGNIFICANT_DIGITS = 6

RESULTS = ("value", "stderr", "bits_per_byte", "perplexity", "final_loss", "entropy", "nfe")
"""The fields of a record that go into its metrics file."""


class MetricsError(ValueError):
    """A metrics file or another part of a record is invalid."""


def write_record(record: Mapping[str, Any], path: Path, metrics: Path | None = None) -> None:
    """Write a record: its `RESULTS` to `metrics`, everything else to `path`; without `metrics`, all of it to `path`.

    Raises:
        MetricsError: a number is infinite or NaN, a value has a type that JSON does not have, or a result is not a
            number; both files are unchanged.
    """
    rounded = {key: _rounded(value, f"{path}: {key}") for key, value in record.items()}
    files = {path: rounded}
    if metrics is not None:
        results = {key: rounded.pop(key) for key in RESULTS if key in rounded}
        if wrong := [key for key, value in results.items() if type(value) not in (int, float)]:
            raise MetricsError(f"{metrics}: {wrong[0]} is {results[wrong[0]]!r}; a result is a number")
        files[metrics] = results
    for file, content in files.items():
        text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
        atomic_write(file, text.encode("utf-8"))


def read_record(path: Path, metrics: Path | None = None) -> dict[str, Any]:
    """Read a record written by `write_record` with the same arguments.

    Raises:
        MetricsError: a file is missing or holds no JSON object, or both files hold the same field.
    """
    hint = f"`dvc repro` makes the files of stage {path.parent.name!r} again"
    record = read_json(path, hint, MetricsError)
    results = {} if metrics is None else read_json(metrics, hint, MetricsError)
    if both := sorted(record.keys() & results.keys()):
        raise MetricsError(f"{path} and {metrics} both have {', '.join(both)}; {hint}")
    return record | results


def write_csv(path: Path, columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write a table; None is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow(f"{cell:.{SIGNIFICANT_DIGITS}g}" if isinstance(cell, float) else cell for cell in row)
    atomic_write(path, text.getvalue().encode("utf-8"))


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
    raise MetricsError(f"{where} is a {type(value).__name__}; a record has numbers, texts, lists and mappings")
