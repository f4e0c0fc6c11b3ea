"""Files and folders that appear whole or not at all: written beside their place and renamed into it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_aside(path: Path, content: bytes) -> None:
    """Put `content` at `path`; whoever reads it meanwhile sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)


@contextmanager
def folder_aside(directory: Path) -> Iterator[Path]:
    """Give an empty folder to fill; on success it replaces `directory`, after an exception it is gone.

    What a killed process left behind is removed by the next one that writes the same folder.
    """
    partial = directory.with_name(f".{directory.name}.partial")
    _remove(partial)
    partial.mkdir(parents=True)
    try:
        yield partial
        _remove(directory)
        partial.rename(directory)
    finally:
        _remove(partial)


def _remove(directory: Path) -> None:
    if directory.exists():
        shutil.rmtree(directory)
