"""What can be followed while a run trains."""

import os
import pty
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mdpipe.training.loggers import open_loggers
from mdpipe.training.metrics import TrainMetrics

PROGRESS = TrainMetrics(
    step=10,
    steps=40,
    loss=2.5,
    max_loss=3.0,
    grad_norm=0.5,
    lr=3e-4,
    tokens_per_sec=1e4,
    flops_per_sec=1e9,
    mfu=0.5,
    peak_mem_mib=500.0,
    eta_s=30.0,
    objective="exponents 0.5 / 1 / 2",
)
TERMINAL = """
from dataclasses import replace
from pathlib import Path
from mdpipe.training.loggers import open_loggers
from tests.training.test_loggers import PROGRESS
with open_loggers(Path("events")) as log_metrics:
    log_metrics(PROGRESS)
    log_metrics(replace(PROGRESS, step=40, loss=2.125))
"""


def test_tensorboard_reads_the_curves(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with open_loggers(tmp_path) as log_metrics:
        log_metrics(PROGRESS)
        log_metrics(replace(PROGRESS, step=20, loss=2.0))
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(point.step, point.value) for point in events.Scalars("train/loss")] == [(10, 2.5), (20, 2.0)]
    assert {"train/lr", "train/grad_norm", "perf/tokens_per_sec", "perf/mfu", "perf/peak_mem_mib"} <= set(
        events.Tags()["scalars"]
    )
    assert capfd.readouterr().err.count("\n") == 2


@pytest.mark.slow
def test_on_a_terminal_there_is_one_line_that_changes(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    root = Path(__file__).parents[2]
    path = os.pathsep.join([str(root / "src"), str(root)])
    environment = {**os.environ, "PYTHONPATH": path, "COLUMNS": "200", "TERM": "xterm"}
    command = [sys.executable, "-c", TERMINAL]
    done = subprocess.run(command, cwd=tmp_path, env=environment, stderr=theirs, timeout=60, check=True)
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    assert done.returncode == 0
    assert "40/40" in shown
    assert "2.1250" in shown
