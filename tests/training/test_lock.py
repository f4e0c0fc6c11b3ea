import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

from mdpipe.training.lock import discard_finished, held, mark_finished

HOLD = """
import sys, time
from pathlib import Path
from mdpipe.training.lock import discard_finished, held, mark_finished
with held(Path(sys.argv[1]), print):
    print("held", flush=True)
    time.sleep(60)
"""


def hold_elsewhere(scratch: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen([sys.executable, "-c", HOLD, scratch], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def wait_here(scratch: Path) -> tuple[threading.Thread, threading.Event, list[str]]:
    """A thread that holds the folder as soon as it can, an event for when it is told to wait, and what it was told."""
    told: list[str] = []
    waiting = threading.Event()

    def announce(message: str) -> None:
        told.append(message)
        waiting.set()

    def hold() -> None:
        with held(scratch, announce):
            told.append("held")

    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    return thread, waiting, told


def test_it_is_held_again_as_soon_as_its_process_is_killed(tmp_path: Path) -> None:
    other = hold_elsewhere(tmp_path / "scratch")
    thread, waiting, told = wait_here(tmp_path / "scratch")
    assert waiting.wait(30)
    assert len(told) == 1
    assert told[0].startswith(f"process {other.pid} on ")
    assert str(tmp_path / "scratch") in told[0]
    other.kill()
    other.communicate()
    thread.join(30)
    assert told[1:] == ["held"]


def test_a_folder_that_was_removed_meanwhile_is_made_and_held_anew(tmp_path: Path) -> None:
    """Else the waiting process would hold a file that no third one can see."""
    other = hold_elsewhere(tmp_path / "scratch")
    thread, waiting, told = wait_here(tmp_path / "scratch")
    assert waiting.wait(30)
    shutil.rmtree(tmp_path / "scratch")
    other.kill()
    other.communicate()
    thread.join(30)
    assert told[1:] == ["held"]
    assert (tmp_path / "scratch" / "lock").read_text().startswith(f"process {os.getpid()} on ")


def test_nobody_waits_for_a_lock_that_was_given_back(tmp_path: Path) -> None:
    told: list[str] = []
    for _ in range(2):
        with held(tmp_path, told.append):
            pass
    assert not told


def test_only_a_finished_folder_in_which_nobody_works_is_discarded(tmp_path):
    scratch = tmp_path / "scratch"
    with held(scratch, announce=lambda _: None):
        discard_finished(scratch)
        mark_finished(scratch)
        discard_finished(scratch)
        assert scratch.exists()
    discard_finished(scratch)
    assert not scratch.exists()
