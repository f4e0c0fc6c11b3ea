"""Allocate GPUs to jobs, so that jobs that run at the same time on a machine have different ones.

A GPU is allocated by locking a file in the machine's temporary folder, which all working copies of a user share. The
kernel releases the lock when the process ends. If a batch system has already chosen GPUs, only those are allocated.
"""

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import takewhile
from pathlib import Path

from filelock import FileLock, Timeout

VISIBLE = "CUDA_VISIBLE_DEVICES"
LOCKS = Path(tempfile.gettempdir()) / f"mdpipe-gpus-{os.getuid()}"
POLL_SECONDS = 0.5


@contextmanager
def allocate_gpus(count: int) -> Iterator[None]:
    """Wait for `count` GPUs and hide all others from what this process starts; do nothing on a machine without GPUs.

    Raises:
        ValueError: The machine has GPUs, but fewer than that.
    """
    devices = visible_gpus()
    if not devices:
        yield
        return
    if count > len(devices):
        raise ValueError(f"the stage needs {count} GPUs and this machine shows {len(devices)}: {', '.join(devices)}")
    LOCKS.mkdir(mode=0o700, exist_ok=True)
    with ExitStack() as locks:
        while len(allocated := _try_to_lock(devices, count, locks)) < count:
            locks.close()  # A process that waits keeps none: two would otherwise wait for each other's GPU forever.
            time.sleep(POLL_SECONDS)
        os.environ[VISIBLE] = ",".join(allocated)
        yield


def visible_gpus() -> list[str]:
    """Return the GPUs that this process may use, by their CUDA names; none without a driver."""
    if VISIBLE in os.environ:
        names = [name.strip() for name in os.environ[VISIBLE].split(",")]
        return list(takewhile(lambda name: name not in ("", "-1", "NoDevFiles"), names))  # As CUDA reads it.
    command = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        return []


def _try_to_lock(devices: list[str], count: int, locks: ExitStack) -> list[str]:
    """Lock up to `count` devices that no other process has locked; return their names."""
    locked: list[str] = []
    for device in devices:
        if len(locked) < count:
            with suppress(Timeout):
                locks.enter_context(FileLock(LOCKS / device, blocking=False))
                locked.append(device)
    return locked
