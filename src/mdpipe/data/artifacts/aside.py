"""Files and folders that appear whole or not at all: written beside their place and renamed into it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mdpipe.data.artifacts.room import needs_room


def write_aside(path: Path, content: bytes) -> None:
    """Put `content` at `path`; whoever reads it meanwhile sees the old file or the new one, never a part.

    Raises:
        DiskFullError: there is no room for it; the old file is left alone.
    """
    partial = path.with_name(f".{path.name}.partial")
    with needs_room(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_bytes(content)
        except OSError:
            partial.unlink(missing_ok=True)
            raise
        partial.replace(path)


@contextmanager
def folder_aside(directory: Path) -> Iterator[Path]:
    """Give an empty folder to fill; on success it replaces `directory`, after an exception it is gone.

    What a killed process left behind is removed by the next one that writes the same folder.

    Raises:
        DiskFullError: there was no room to fill it; the old folder is left alone.
    """
    partial = directory.with_name(f".{directory.name}.partial")
    _remove(partial)
    try:
        with needs_room(directory):
            partial.mkdir(parents=True)
            yield partial
        _remove(directory)
        partial.rename(directory)
    finally:
        _remove(partial)


def _remove(directory: Path) -> None:
    if directory.exists():
        shutil.rmtree(directory)
