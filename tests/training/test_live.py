"""What can be followed while a run trains."""

import os
import pty
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mdpipe.training.live import live
from mdpipe.training.progress import Progress

PROGRESS = Progress(
    step=10,
    steps=40,
    loss=2.5,
    largest_loss=3.0,
    gradient_norm=0.5,
    learning_rate=3e-4,
    tokens_per_second=1e4,
    flops_per_second=1e9,
    share_of_peak=0.5,
    memory_mib=500.0,
    seconds_left=30.0,
    learned="exponents 0.5 / 1 / 2",
)
TERMINAL = """
from dataclasses import replace
from pathlib import Path
from mdpipe.training.live import live
from tests.training.test_live import PROGRESS
with live(Path("events")) as report:
    report(PROGRESS)
    report(replace(PROGRESS, step=40, loss=2.125))
"""


def test_tensorboard_reads_the_curves(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with live(tmp_path) as report:
        report(PROGRESS)
        report(replace(PROGRESS, step=20, loss=2.0))
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(point.step, point.value) for point in events.Scalars("loss")] == [(10, 2.5), (20, 2.0)]
    assert {"gradient_norm", "tokens_per_second", "flops_per_second", "memory_mib"} <= set(events.Tags()["scalars"])
    assert capfd.readouterr().err.count("\n") == 2


def test_on_a_terminal_there_is_one_line_that_changes(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "COLUMNS": "200", "TERM": "xterm"}
    command = [sys.executable, "-c", TERMINAL]
    done = subprocess.run(command, cwd=tmp_path, env=environment, stderr=theirs, timeout=60, check=True)
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    assert done.returncode == 0
    assert "40/40" in shown
    assert "2.1250" in shown
