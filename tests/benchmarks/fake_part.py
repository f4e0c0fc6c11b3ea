"""Parts of a GPU run that measure nothing and end in every way."""

import os
import signal
import sys
import time
from collections.abc import Iterator

from mdpipe.benchmarks.gpu import Job


def fail(job: Job) -> Iterator[dict]:
    yield {"row": 1}
    raise ValueError("no")


def hang(job: Job) -> Iterator[dict]:
    yield {"row": 1}
    time.sleep(600)


def die(job: Job) -> Iterator[dict]:
    yield {"row": 1}
    os.kill(os.getpid(), signal.SIGSEGV)


def never(job: Job) -> Iterator[dict]:
    sys.exit(3)
    yield {}


def finish(job: Job) -> Iterator[dict]:
    yield {"row": 1}
