"""Disk space: checked before a long stage begins, and reported in one way where it runs out all the same."""

import errno
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MIN_REPORTED_BYTES = 10**8
"""Stages that need at least this much say so."""

DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""A full disk, an exhausted quota, and a limit on the size of files (`ulimit -f`)."""

ERRNO_IN_TEXT = re.compile(r"os error (\d+)|\[Errno (\d+)\]")
"""Error numbers of the operating system in messages of libraries in Rust and C++."""

NUMPY_SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")
"""numpy's message when the disk is full; it has no error number."""


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
            f"{named} cannot be written: {os.strerror(number)}, {_free(named) / 1e9:,.2f} GB free; make room, and run"
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


def check_disk_space(path: Path, needed: int, task: str) -> None:
    """Check that this many bytes fit on the disk of `path`, which need not exist yet, and report large amounts.

    Raises:
        ValueError: they do not fit; the message says how much is missing.
    """
    free = _free(path)
    if needed > free:
        raise ValueError(
            f"{task} needs about {needed / 1e9:,.2f} GB in {path}, where {free / 1e9:,.2f} GB are free: make room for"
            f" {(needed - free) / 1e9:,.2f} GB, or move the working copy to a larger disk"
        )
    if needed >= MIN_REPORTED_BYTES:
        sys.stderr.write(f"{task} needs about {needed / 1e9:,.2f} GB of the disk's free {free / 1e9:,.2f} GB\n")


def _free(path: Path) -> int:
    """Return the free bytes on the disk of a path, which need not exist yet."""
    existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    return shutil.disk_usage(existing).free
