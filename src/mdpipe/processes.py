"""Processes: their memory, without torch, and the end of a process when the one that started it has ended.

A killed DVC leaves its command running, which would train on, unnoticed, next to the process that the next `dvc repro`
starts. All outputs are written atomically and training resumes from its last checkpoint, so exiting at any moment is
safe.
"""

import multiprocessing
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

MEBIBYTE = 2**20
POLL_SECONDS = 0.5

EXIT_ORPHANED = 75
"""Exit status: EX_TEMPFAIL, try again."""

DVC_MARK = "DVC_STAGE"
"""Set by DVC in the environment of the commands it runs; a stage that a user started may outlive its shell."""
TORCHRUN_MARK = "TORCHELASTIC_RUN_ID"
"""Set by torchrun in the environment of the processes that train a run together."""


def peak_rss_mib(include_children: bool = False) -> float:
    """Return the largest resident set so far in MiB, of this process or also of any of its children that have ended."""
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if include_children:
        largest = max(largest, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
    return largest * (1 if sys.platform == "darwin" else 1024) / MEBIBYTE


def exit_with_parent(is_needed: Callable[[], bool] = lambda: True) -> None:
    """Exit at once, from a thread, when the parent has ended or the process is no longer needed."""
    # A process that multiprocessing has spawned knows its parent even if that ended before this call.
    spawner = multiprocessing.parent_process()
    parent = os.getppid() if spawner is None else spawner.pid

    def watch() -> None:
        while os.getppid() == parent and is_needed():
            time.sleep(POLL_SECONDS)
        os._exit(EXIT_ORPHANED)

    threading.Thread(target=watch, daemon=True).start()


def exit_with_engine() -> None:
    """Have this process exit when DVC or torchrun, which started it, has ended; do nothing without them."""
    if DVC_MARK in os.environ or TORCHRUN_MARK in os.environ:
        exit_with_parent()


@contextmanager
def request_requeue(status: int, folder: Path) -> Iterator[None]:
    """Ask the job (workflow/job.py) to run the stage again if the block exits with this status under DVC.

    DVC does not pass on exit statuses, so this creates a file of the stage's name in the folder.
    """
    try:
        yield
    except SystemExit as ended:
        if ended.code == status and DVC_MARK in os.environ:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / os.environ[DVC_MARK]).touch()
        raise
