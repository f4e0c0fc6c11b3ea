"""Files on disk: atomic writes, hard links, disk space, and JSON and CSV with stable bytes.

The record of a stage has results and what describes them: names, units, settings, counts and details. The results go
into a metrics file of DVC, which git tracks; everything else goes into a second file, a cached output of DVC. DVC shows
every key of a metrics file as a column, so metrics files have only the headline results, `RESULTS`, under the same
names in every stage.

Floats of records and tables have six significant digits: far finer than any reported standard error, and coarse enough
to hide the last bits, in which a sum may differ between machines.
"""

import csv
import errno
import hashlib
import io
import json
import math
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

MIN_REPORTED_BYTES = 10**8
"""Stages that need at least this much say so."""
DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""A full disk, an exhausted quota, and a limit on the size of files (`ulimit -f`)."""
ERRNO_IN_TEXT = re.compile(r"os error (\d+)|\[Errno (\d+)\]")
"""Error numbers of the operating system in messages of libraries in Rust and C++."""
NUMPY_SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")
"""numpy's message when the disk is full; it has no error number."""

SIGNIFICANT_DIGITS = 6

RESULTS = ("value", "stderr", "bits_per_byte", "perplexity", "final_loss", "entropy", "nfe", "fid", "accuracy")
"""The fields of a record that go into its metrics file."""


def atomic_write(path: Path, content: bytes) -> None:
    """Write a file atomically.

    Raises:
        DiskFullError: The disk is full; the old file is kept.
    """
    partial = path.with_name(f".{path.name}.partial")
    with explain_disk_full(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_bytes(content)
        except OSError:
            partial.unlink(missing_ok=True)
            raise
        partial.replace(path)


@contextmanager
def atomic_dir(directory: Path) -> Iterator[Path]:
    """Yield an empty folder that replaces `directory` on success and is removed after an exception.

    A folder that a killed process left behind is removed by the next process that writes the same one.

    Raises:
        DiskFullError: The disk is full; the old folder is kept.
    """
    partial = directory.with_name(f".{directory.name}.partial")
    _remove(partial)
    try:
        with explain_disk_full(directory):
            partial.mkdir(parents=True)
            yield partial
        _remove(directory)
        partial.rename(directory)
    finally:
        _remove(partial)


def _remove(directory: Path) -> None:
    if directory.exists():
        shutil.rmtree(directory)


def link_or_copy(file: Path, target: Path) -> None:
    """Hard-link a file, or copy it where the file system has no hard links; neither may be written to afterwards."""
    with suppress(OSError):
        os.link(file, target)
        return
    shutil.copyfile(file, target)


class DiskFullError(OSError):
    """A file could not be written because the disk is full."""

    def __str__(self) -> str:
        return str(self.strerror)


@contextmanager
def explain_disk_full(path: Path) -> Iterator[None]:
    """Raise DiskFullError, naming the file or folder that the block writes, if the disk is full.

    Every library reports a full disk in its own way, and few of them name the file.
    """
    try:
        yield
    except DiskFullError:
        raise
    except Exception as error:
        if (number := disk_full_errno(error)) is None:
            raise
        named = Path(error.filename) if isinstance(error, OSError) and error.filename else path
        raise DiskFullError(
            number,
            f"{named} cannot be written: {os.strerror(number)}, {_in_gb(_free(named))} free; make room, and run"
            " the same command again",
        ) from None


def disk_full_errno(error: BaseException) -> int | None:
    """Return the errno of an error that means a full disk, or None if it means something else."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno if error.errno in DISK_FULL_ERRNOS else None
    if isinstance(error, OSError) and NUMPY_SHORT_WRITE.search(str(error)):
        return errno.ENOSPC
    numbers = (int(match[1] or match[2]) for match in ERRNO_IN_TEXT.finditer(str(error)))
    return next((number for number in numbers if number in DISK_FULL_ERRNOS), None)


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_size(path: Path) -> int:
    """Return the bytes of a file, or of all files of a folder."""
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())


def check_disk_space(path: Path, needed: int, task: str) -> None:
    """Check that this many bytes fit on the disk of `path`, which need not exist yet, and report large amounts.

    Raises:
        ValueError: They do not fit; the message says how much is missing.
    """
    free = _free(path)
    if needed > free:
        raise ValueError(
            f"{task} needs about {_in_gb(needed)} in {path}, where {_in_gb(free)} are free: make room for"
            f" {_in_gb(needed - free)}, or move the working copy to a larger disk"
        )
    if needed >= MIN_REPORTED_BYTES:
        sys.stderr.write(f"{task} needs about {_in_gb(needed)} of the disk's free {_in_gb(free)}\n")


def _in_gb(size: int) -> str:
    """Return a size in GB, or in MB where it is less than 0.1 GB."""
    return f"{size / 1e9:,.2f} GB" if size >= MIN_REPORTED_BYTES else f"{size / 1e6:,.2f} MB"


def _free(path: Path) -> int:
    existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    return shutil.disk_usage(existing).free


class Header(BaseModel):
    """Content of a JSON file: exactly these keys, with exactly these types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


H = TypeVar("H", bound=Header)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON object with sorted keys, so that equal content makes equal bytes."""
    path.write_bytes(_to_json(content))


def _to_json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode("utf-8")


def read_json(path: Path, hint: str, error: type[ValueError] = ValueError) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ValueError: The file is missing, is not JSON or holds no object; of the class `error`, and ending with `hint`.
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise error(f"{path} does not exist; {hint}") from None
    except ValueError as reason:
        raise error(f"{path} is not JSON ({reason}); {hint}") from None
    if not isinstance(content, dict):
        raise error(f"{path} should hold a JSON object, not {type(content).__name__}; {hint}")
    return content


def read_header(path: Path, header: type[H], hint: str) -> H:
    """Read a JSON object and check every key.

    Raises:
        ValueError: The file is missing or broken, or a key is missing, unknown or of another type; the message names
            the first such key and ends with `hint`.
    """
    content = read_json(path, hint)
    try:
        return header.model_validate_json(json.dumps(content))  # As JSON: a list is a tuple there.
    except ValidationError as error:
        raise ValueError(f"{path}: {first_problem(error)}; {hint}") from None


def first_problem(error: ValidationError) -> str:
    """Return the first problem of a validation, in one line: `shape: Field required`."""
    problem = error.errors(include_url=False)[0]
    where = ".".join(map(str, problem["loc"]))
    message = problem["msg"].removeprefix("Value error, ")
    value = "" if problem["type"] == "missing" else f" = {problem['input']!r}"
    return f"{where}{value}: {message}" if where else message


class MetricsError(ValueError):
    """A metrics file or another part of a record is invalid."""


def write_record(record: Mapping[str, Any], path: Path, metrics: Path | None = None) -> None:
    """Write a record: its `RESULTS` to `metrics`, everything else to `path`; without `metrics`, all of it to `path`.

    Raises:
        MetricsError: A number is infinite or NaN, a value has a type that JSON does not have, or a result is not a
            number; both files are unchanged.
    """
    rounded = {key: _round_value(value, f"{path}: {key}") for key, value in record.items()}
    files = {path: rounded}
    if metrics is not None:
        results = {key: rounded.pop(key) for key in RESULTS if key in rounded}
        if wrong := [key for key, value in results.items() if type(value) not in (int, float)]:
            raise MetricsError(f"{metrics}: {wrong[0]} is {results[wrong[0]]!r}; a result is a number")
        files[metrics] = results
    for file, content in files.items():
        atomic_write(file, _to_json(content))


def read_record(path: Path, metrics: Path | None = None) -> dict[str, Any]:
    """Read a record written by `write_record` with the same arguments.

    Raises:
        MetricsError: A file is missing or holds no JSON object, or both files hold the same field.
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


def _round_value(value: Any, where: str) -> Any:
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            if not math.isfinite(value):
                raise MetricsError(f"{where} is {value}; a metric must be finite")
            return float(f"{value:.{SIGNIFICANT_DIGITS}g}") + 0.0  # the zero makes -0.0 a plain 0.0
        case Mapping():
            return {key: _round_value(entry, f"{where}.{key}") for key, entry in value.items()}
        case list() | tuple():
            return [_round_value(entry, f"{where}[{index}]") for index, entry in enumerate(value)]
    raise MetricsError(f"{where} is a {type(value).__name__}; a record has numbers, texts, lists and mappings")
