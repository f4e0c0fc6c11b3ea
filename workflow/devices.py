"""GPUs handed out to jobs: those that run side by side on a machine have different ones.

A GPU is taken by a lock on a file of this machine's own temporary folder, shared by all working copies of a user. The
lock is the kernel's and dies with its holder. Where a batch system has chosen GPUs already, it is those that are handed
out.
"""

import fcntl
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import takewhile
from pathlib import Path

VISIBLE = "CUDA_VISIBLE_DEVICES"
LOCKS = Path(tempfile.gettempdir()) / f"mdpipe-gpus-{os.getuid()}"
POLL_SECONDS = 0.5


@contextmanager
def own_devices(count: int) -> Iterator[None]:
    """Wait for `count` GPUs and show no others to what this process starts; a machine without any changes nothing.

    Raises:
        ValueError: the machine has GPUs, but fewer than that.
    """
    devices = visible_devices()
    if not devices:
        yield
        return
    if count > len(devices):
        raise ValueError(f"the stage needs {count} GPUs and this machine shows {len(devices)}: {', '.join(devices)}")
    LOCKS.mkdir(mode=0o700, exist_ok=True)
    with ExitStack() as held:
        while len(taken := _try_to_take(devices, count, held)) < count:
            held.close()  # Whoever waits holds nothing, or two that wait for each other's GPU would do so for ever.
            time.sleep(POLL_SECONDS)
        os.environ[VISIBLE] = ",".join(taken)
        yield


def visible_devices() -> list[str]:
    """The GPUs that this process may use, by the names that CUDA takes; none where there is no driver."""
    if VISIBLE in os.environ:
        names = [name.strip() for name in os.environ[VISIBLE].split(",")]
        return list(takewhile(lambda name: name not in ("", "-1", "NoDevFiles"), names))  # As CUDA reads it.
    command = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        return []


def _try_to_take(devices: list[str], count: int, held: ExitStack) -> list[str]:
    taken: list[str] = []
    for device in devices:
        if len(taken) == count:
            break
        lock = (LOCKS / device).open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        held.enter_context(lock)
        taken.append(device)
    return taken
