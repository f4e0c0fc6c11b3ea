"""Atomic files and folders, hard links, and JSON with stable bytes."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mdpipe.data.artifacts.disk_space import explain_disk_full


def atomic_write(path: Path, content: bytes) -> None:
    """Write a file atomically.

    Raises:
        DiskFullError: the disk is full; the old file is kept.
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
        DiskFullError: the disk is full; the old folder is kept.
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


@contextmanager
def scratch_dir(directory: Path) -> Iterator[Path]:
    """Yield the path of a folder next to `directory`; it is removed on leaving, and first if a killed process left it.

    The folder does not exist yet.
    """
    scratch = directory.with_name(f".{directory.name}.scratch")
    _remove(scratch)
    try:
        yield scratch
    finally:
        _remove(scratch)


def link_or_copy(file: Path, target: Path) -> None:
    """Hard-link a file, or copy it where the file system has no hard links; neither may be written to afterwards."""
    with suppress(OSError):
        os.link(file, target)
        return
    shutil.copyfile(file, target)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON object with sorted keys, so that equal content makes equal bytes."""
    path.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path, hint: str, error: type[ValueError] = ValueError) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ValueError: the file is missing, is not JSON or holds no object; of the class `error`, and ending with `hint`.
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


def _remove(directory: Path) -> None:
    if directory.exists():
        shutil.rmtree(directory)
