"""The lock of a scratch folder: one process trains in it, others wait for it.

The kernel holds it (flock), so that it is gone the moment its process is, kill -9 included.
"""

import fcntl
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

FILE = "lock"
FINISHED = "finished"


@contextmanager
def held(scratch: Path, announce: Callable[[str], None]) -> Iterator[None]:
    """Hold the folder, which is made if need be, while the block runs.

    Where another process holds it, `announce` gets one message that says which, and this process waits.
    """
    lock = _acquire(scratch, announce)
    try:
        yield
    finally:
        lock.close()


def discard_finished(scratch: Path) -> None:
    """Remove a folder that `mark_finished` has marked, unless a process is at work in it."""
    if not (scratch / FINISHED).exists():
        return
    with (scratch / FILE).open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        shutil.rmtree(scratch)


def mark_finished(scratch: Path) -> None:
    """Note that the folder's run has ended, so that nothing is lost with its checkpoints."""
    (scratch / FINISHED).touch()


def _acquire(scratch: Path, announce: Callable[[str], None]) -> TextIO:
    while True:
        scratch.mkdir(parents=True, exist_ok=True)
        lock = (scratch / FILE).open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            announce(f"{lock.read().strip() or 'another process'} trains in {scratch}: waiting until it ends")
            fcntl.flock(lock, fcntl.LOCK_EX)
        if _is_still_at(scratch / FILE, lock):
            lock.truncate(0)
            lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            lock.flush()
            return lock
        lock.close()  # The former holder removed the folder when it was done: this lock keeps nobody out.


def _is_still_at(path: Path, lock: TextIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(lock.fileno()))
    except FileNotFoundError:
        return False
