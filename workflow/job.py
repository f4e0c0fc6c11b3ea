"""Run one stage through DVC, and end with the engine that asked for it: `python -m workflow.job STAGE GPUS`.

It is `dvc --wait-for-lock repro --single-item STAGE` in this process, which spares every stage the start of another.
`--single-item` leaves the order to Snakemake; `--wait-for-lock` lets jobs that run side by side take turns where DVC
must be alone. A killed engine leaves its jobs running; were they left alone, the next engine would find their outputs
busy. So a job looks up once in a while whether its engine is still there, and a lock tells the next engine when
all have gone. Training loses nothing: it goes on from its last checkpoint.

A signal that asks for an end (a batch system's, before it takes the machine away) is passed on to the stage. Training
that was asked to end by somebody else, and says that it could go on, is run again.
"""

import fcntl
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType

import psutil
from dvc.cli import main as dvc
from dvc.utils.serialize import _yaml

from mdpipe.pipeline.supervision import REQUEUE_DIR
from workflow.cache import stop_at_full_disk, verify_objects
from workflow.devices import own_devices

POLL_SECONDS = 0.5
ENGINE_PID = "MDPIPE_ENGINE_PID"
JOBS_LOCK = Path(".mdpipe/jobs.lock")


def main(stage: str, gpus: int) -> int:
    """Run the stage with so many GPUs, where the machine has any; the exit status is DVC's."""
    threading.Thread(target=_end_with, args=(int(os.environ[ENGINE_PID]), os.getppid()), daemon=True).start()
    read_lock_file_fast()
    verify_objects(remove=True)
    stop_at_full_disk()
    asked = _pass_signals_on()
    requeue = REQUEUE_DIR / stage
    with JOBS_LOCK.open("w") as lock, own_devices(gpus):
        fcntl.flock(lock, fcntl.LOCK_SH)
        while True:
            requeue.unlink(missing_ok=True)
            status = int(dvc(["--wait-for-lock", "repro", "--single-item", stage]))
            if asked or not requeue.exists():
                return status


def _pass_signals_on() -> list[int]:
    """Send SIGTERM and SIGUSR1 on to all that this process has started, and stay; the list fills with what came."""
    came: list[int] = []

    def pass_on(number: int, _: FrameType | None) -> None:
        came.append(number)
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, pass_on)
    return came


def read_lock_file_fast() -> None:
    """Have DVC update dvc.lock as it reads it, by a parser in C.

    For an update DVC parses in pure Python, which keeps comments and line breaks; a lock file has none that DVC did not
    put there, and the bytes written are the same. In a suite of fifty stages it would take half of a job's own time.
    """
    _yaml.parse_yaml_for_update = _yaml.parse_yaml


def _end_with(engine: int, parent: int) -> None:
    """SIGKILL, for DVC may be in the middle of anything and survives that; its command ends by itself (parent.py)."""
    while _is_alive(engine) and os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


def _is_alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1], int(sys.argv[2])))
    except ValueError as error:
        sys.exit(f"error: {error}")
