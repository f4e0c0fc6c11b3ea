"""A stage ends with the process that started it, and may request to be run again.

A killed DVC leaves its command running, which would train on, unnoticed, next to the process that the next `dvc repro`
starts. All outputs are written atomically and training resumes from its last checkpoint, so exiting at any moment is
safe.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mdpipe.processes import exit_with_parent

DVC_MARK = "DVC_STAGE"
"""Set by DVC in the environment of the commands it runs; a stage started by hand may outlive its shell."""
TORCHRUN_MARK = "TORCHELASTIC_RUN_ID"
"""Set by torchrun in the environment of the processes that train a run together."""

REQUEUE_DIR = Path(".mdpipe/requeue")
"""A stage that asks to be run again creates a file of its name here, since DVC does not pass on exit statuses."""


def exit_with_engine() -> None:
    """Have this process exit when DVC or torchrun, which started it, has ended; do nothing without them."""
    if DVC_MARK in os.environ or TORCHRUN_MARK in os.environ:
        exit_with_parent()


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
