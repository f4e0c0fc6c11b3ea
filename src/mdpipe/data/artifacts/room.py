"""Room on the disk: asked for before a long stage begins, and named where it is missing all the same."""

import errno
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

WORTH_SAYING = 10**8
"""Bytes, from which on a stage says what it will need."""

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""A full disk, an exhausted quota, and a limit on the size of files (`ulimit -f`)."""

IN_TEXT = re.compile(r"os error (\d+)|\[Errno (\d+)\]")
"""How libraries in Rust and C++ pass the number of an error of the operating system on."""

NUMPY_WROTE = re.compile(r"\d+ requested and \d+ written")
"""All that numpy says of a disk that is full."""


class DiskFullError(OSError):
    """A file could not be written for lack of room."""

    def __str__(self) -> str:
        return str(self.strerror)


@contextmanager
def needs_room(path: Path) -> Iterator[None]:
    """Raise DiskFullError, which names the file or folder that the block writes, if there is no room for it.

    Libraries report a full disk each in their own way, and few of them name the file.
    """
    try:
        yield
    except DiskFullError:
        raise
    except Exception as error:
        if (number := no_room(error)) is None:
            raise
        named = Path(error.filename) if isinstance(error, OSError) and error.filename else path
        raise DiskFullError(
            number,
            f"{named} cannot be written: {os.strerror(number)}, {_free(named) / 1e9:,.2f} GB free; make room, and run"
            " the same command again",
        ) from None


def no_room(error: BaseException) -> int | None:
    """Return the number of an error that means a lack of room, or None if the error means something else."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno if error.errno in NO_ROOM else None
    if isinstance(error, OSError) and NUMPY_WROTE.search(str(error)):
        return errno.ENOSPC
    numbers = (int(match[1] or match[2]) for match in IN_TEXT.finditer(str(error)))
    return next((number for number in numbers if number in NO_ROOM), None)


def require_room(place: Path, needed: int, what: str) -> None:
    """Say that so many bytes will be needed, and make sure that they fit where `place` is, or will be.

    Raises:
        ValueError: they do not; the message says how much is missing.
    """
    free = _free(place)
    if needed > free:
        raise ValueError(
            f"{what} needs about {needed / 1e9:,.2f} GB in {place}, where {free / 1e9:,.2f} GB are free: make room for"
            f" {(needed - free) / 1e9:,.2f} GB, or move the working copy to a larger disk"
        )
    if needed >= WORTH_SAYING:
        sys.stderr.write(f"{what} needs about {needed / 1e9:,.2f} GB of the disk's free {free / 1e9:,.2f} GB\n")


def _free(path: Path) -> int:
    """Return the free bytes of the disk where a path is, or will be."""
    existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    return shutil.disk_usage(existing).free
