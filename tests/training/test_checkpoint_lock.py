"""The lock of a checkpoint folder."""

import logging
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mdpipe.training.checkpoint import discard_finished, lock_checkpoint_dir, mark_finished

HOLD = """
import sys, time
from pathlib import Path
from mdpipe.training.checkpoint import lock_checkpoint_dir
with lock_checkpoint_dir(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""
PATIENCE = 60


def lock_elsewhere(checkpoint_dir: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen([sys.executable, "-c", HOLD, checkpoint_dir], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    return process


class Messages(logging.Handler):
    """Collects log messages and signals the first one."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []
        self.arrived = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())
        self.arrived.set()


@pytest.fixture
def log() -> Iterator[Messages]:
    logger, handler = logging.getLogger("mdpipe"), Messages()
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def lock_here(checkpoint_dir: Path, log: Messages) -> threading.Thread:
    """Start a thread that locks the folder as soon as it can and then logs it."""

    def lock() -> None:
        with lock_checkpoint_dir(checkpoint_dir):
            log.messages.append("locked")

    thread = threading.Thread(target=lock, daemon=True)
    thread.start()
    return thread


@pytest.mark.slow
def test_lock_is_released_when_its_process_is_killed(tmp_path: Path, log: Messages) -> None:
    folder = tmp_path / "checkpoints"
    other = lock_elsewhere(folder)
    thread = lock_here(folder, log)
    assert log.arrived.wait(PATIENCE)
    assert log.messages == [
        f"process {other.pid} on {socket.gethostname()} is training in {folder}: waiting until it ends"
    ]
    other.kill()
    other.communicate()
    thread.join(PATIENCE)
    assert log.messages[1:] == ["locked"]


@pytest.mark.slow
def test_removed_folder_is_created_and_locked_again(tmp_path: Path, log: Messages) -> None:
    """Otherwise the waiting process would hold a lock file that no third one can see."""
    folder = tmp_path / "checkpoints"
    other = lock_elsewhere(folder)
    thread = lock_here(folder, log)
    assert log.arrived.wait(PATIENCE)
    shutil.rmtree(folder.rename(tmp_path / "discarded"))
    thread.join(PATIENCE)
    assert log.messages[1:] == ["locked"]
    assert (folder / "lock").read_text().startswith(f"process {os.getpid()} on ")
    other.kill()
    other.communicate()


def test_released_lock_is_acquired_without_waiting(tmp_path: Path, log: Messages) -> None:
    for _ in range(2):
        with lock_checkpoint_dir(tmp_path):
            pass
    assert not log.messages


def test_only_a_finished_and_unlocked_folder_is_discarded(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    with lock_checkpoint_dir(folder):
        discard_finished(folder)
        mark_finished(folder)
        discard_finished(folder)
        assert folder.exists()
    left = tmp_path / "checkpoints.discarded"
    left.mkdir()
    (left / "step-1.safetensors").touch()  # A kill while it was removed.
    discard_finished(folder)
    assert not list(tmp_path.iterdir())
