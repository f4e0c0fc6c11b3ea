"""A stage ends with the DVC process that runs it.

A killed DVC leaves its command running. Left alone it would train on, unseen, beside the process that the next `dvc
repro` starts. All outputs are written aside and renamed, and training resumes from its last checkpoint, so ending at
any moment is safe.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

POLL_SECONDS = 0.5
DVC_MARK = "DVC_STAGE"
"""Set by DVC in the environment of the commands it runs; a stage started by hand may outlive its shell."""
TORCHRUN_MARK = "TORCHELASTIC_RUN_ID"
"""Set by torchrun in the environment of the processes that train a run together."""

ORPHANED = 75
"""Exit status: EX_TEMPFAIL, try again."""

REQUEUE_DIR = Path(".mdpipe/requeue")
"""A stage that asks to be run again creates a file of its name here, since DVC does not pass on exit statuses."""


def end_with_parent() -> None:
    """Watch the parent, DVC or torchrun, from a thread; leave at once when it is gone."""
    if DVC_MARK in os.environ or TORCHRUN_MARK in os.environ:
        threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    os._exit(ORPHANED)


@contextmanager
def request_requeue(status: int) -> Iterator[None]:
    """If the block exits with this status under DVC, ask the job (workflow/job.py) to run the stage again."""
    try:
        yield
    except SystemExit as ended:
        if ended.code == status and DVC_MARK in os.environ:
            REQUEUE_DIR.mkdir(parents=True, exist_ok=True)
            (REQUEUE_DIR / os.environ[DVC_MARK]).touch()
        raise
