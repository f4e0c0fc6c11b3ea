"""Processes that are killed on their way."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

MOST_SECONDS = 5.0
"""In which what a killed process leaves running must end."""


def run_until(script: Path, workers: int, reached: Callable[[], bool], delay: float = 0) -> tuple[bool, int]:
    """Run a script, and kill it by SIGKILL so many seconds after something is reached.

    Returns:
        whether it was killed before it ended, and how many processes it had of its own.
    """
    process = start(script, workers)
    while not reached() and process.poll() is None:
        time.sleep(0.002)
    time.sleep(delay)
    if process.poll() is not None:
        assert process.returncode == 0
        return False, 0
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    ended = time.monotonic() + MOST_SECONDS
    while alive := [child for child in children if is_alive(child)]:
        assert time.monotonic() < ended, f"{alive} outlived their parent"
        time.sleep(0.01)
    return True, len(children)


def run(script: Path, workers: int) -> None:
    """Run a script to its end."""
    assert start(script, workers).wait() == 0


def start(script: Path, workers: int) -> subprocess.Popen[bytes]:
    """A script in a process of its own that prepares data with so many others."""
    environment = {
        "MDPIPE_WORKERS": str(workers),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": "src:.",
        "PATH": "/usr/bin:/bin",
    }
    return subprocess.Popen([sys.executable, str(script)], env=environment, cwd=Path(__file__).parents[2])


def is_alive(process: psutil.Process) -> bool:
    """Whether it still runs; one that ended and that nobody waited for does not."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def marks(folder: Path) -> dict[Path, tuple[int, int]]:
    """What tells a file from one that was written again: number and time of all files of finished pieces."""
    return {
        path: (path.stat().st_ino, path.stat().st_mtime_ns)
        for piece in (folder.iterdir() if folder.exists() else [])
        if not piece.name.startswith(".")
        for path in piece.iterdir()
    }
