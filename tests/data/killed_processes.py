"""Processes that are killed while they work."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

MOST_SECONDS = 30.0
"""In which what a killed process leaves running must end."""


def run_until(script: Path, workers: int, is_reached: Callable[[], bool], delay: float = 0) -> tuple[bool, int]:
    """Run a script, and kill it by SIGKILL `delay` seconds after something is reached.

    Returns:
        whether it was killed before it ended, and how many child processes it had.
    """
    process = start(script, workers)
    while not is_reached() and process.poll() is None:
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
    """Start a script in a process that prepares data with this many workers."""
    environment = {
        "MDPIPE_WORKERS": str(workers),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": "src:.",
        "PATH": "/usr/bin:/bin",
    }
    return subprocess.Popen([sys.executable, str(script)], env=environment, cwd=Path(__file__).parents[2])


def is_alive(process: psutil.Process) -> bool:
    """Return True if it still runs; a zombie does not."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def marks(folder: Path) -> dict[Path, tuple[int, int]]:
    """Return inode and time of all files of finished shards, which differ for a file that was written again."""
    return {
        path: (path.stat().st_ino, path.stat().st_mtime_ns)
        for shard in (folder.iterdir() if folder.exists() else [])
        if not shard.name.startswith(".")
        for path in shard.iterdir()
    }
