"""Run one stage through DVC, and end with the engine that asked for it: `python workflow/job.py STAGE`.

`--single-item` leaves the order to Snakemake; `--wait-for-lock` lets jobs that run side by side take turns where DVC
must be alone. A killed engine leaves its jobs running; were they left alone, the next engine would find their outputs
busy. So a job looks up once in a while whether its engine is still there, and a lock tells the next engine when
all have gone. Training loses nothing: it goes on from its last checkpoint.
"""

import ctypes
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

POLL_SECONDS = 0.5
ENGINE_PID = "MDPIPE_ENGINE_PID"
JOBS_LOCK = Path(".mdpipe/jobs.lock")
PR_SET_PDEATHSIG = 1


def main(stage: str) -> int:
    """Run the stage; the exit status is DVC's."""
    engine = int(os.environ[ENGINE_PID])
    parent = os.getppid()
    with JOBS_LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", stage]
        # The child inherits the lock: it is free only when job and DVC are both gone.
        job = subprocess.Popen(command, pass_fds=[lock.fileno()], preexec_fn=_die_with_parent)
        while True:
            try:
                return job.wait(POLL_SECONDS)
            except subprocess.TimeoutExpired:
                if not _is_alive(engine) or os.getppid() != parent:
                    job.kill()


def _is_alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _die_with_parent() -> None:
    """Have the kernel end DVC when this process is killed; elsewhere than on Linux the lock alone must do."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
