"""What can be followed while a run trains."""

import json
import os
import pty
import struct
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mdpipe.params.strict_yaml import read_yaml
from mdpipe.training.loggers import LOGGERS_VARIABLE, LoggedRun, open_loggers
from mdpipe.training.metrics import TrainMetrics

if TYPE_CHECKING:  # Every process of the tests collects this module, and these load for seconds.
    from wandb.proto.wandb_internal_pb2 import Record

PROGRESS = TrainMetrics(
    step=10,
    steps=40,
    scalars={
        "train/loss": 2.5,
        "train/max_loss": 3.0,
        "train/grad_norm": 0.5,
        "train/lr": 3e-4,
        "perf/tokens_per_sec": 1e4,
        "perf/flops_per_sec": 1e9,
        "perf/mfu": 0.5,
        "perf/peak_mem_mib": 500.0,
        "perf/eta_s": 30.0,
    },
    objective="exponents 0.5 / 1 / 2",
)
TERMINAL = """
from pathlib import Path
from mdpipe.training.loggers import open_loggers
from tests.training.test_loggers import PROGRESS, logged_run, later
with open_loggers(logged_run(Path("events"))) as log_metrics:
    log_metrics(PROGRESS)
    log_metrics(later(40, 2.125))
"""


def logged_run(folder: Path) -> LoggedRun:
    return LoggedRun("small", "0123456789abcdef0123", {"train": {"steps": 40}, "objective": "md4"}, folder)


def later(step: int, loss: float) -> TrainMetrics:
    return replace(PROGRESS, step=step, scalars={**PROGRESS.scalars, "train/loss": loss})


def log_twice(folder: Path) -> None:
    with open_loggers(logged_run(folder)) as log_metrics:
        log_metrics(PROGRESS)
        log_metrics(later(20, 2.0))


def test_tensorboard_reads_the_curves(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log_twice(tmp_path)
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(point.step, point.value) for point in events.Scalars("train/loss")] == [(10, 2.5), (20, 2.0)]
    assert {"train/lr", "train/grad_norm", "perf/tokens_per_sec", "perf/mfu", "perf/peak_mem_mib"} <= set(
        events.Tags()["scalars"]
    )
    assert capfd.readouterr().err.count("\n") == 2


def test_dvclive_has_the_curves_and_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOGGERS_VARIABLE, "dvclive")
    log_twice(tmp_path)
    curve = (tmp_path / "dvclive/plots/metrics/train/loss.tsv").read_text().split()
    assert curve == ["step", "loss", "10", "2.5", "20", "2.0"]
    assert read_yaml((tmp_path / "dvclive/params.yaml").read_bytes()) == {"train.steps": 40, "objective": "md4"}


def wandb_records(file: Path) -> list["Record"]:
    """Return the records of a file in LevelDB's log format, once W&B's service has written the last one."""
    from wandb.proto.wandb_internal_pb2 import Record

    ended = time.monotonic() + 60
    while time.monotonic() < ended:
        content, records, start = file.read_bytes(), [], 7
        while start + 7 <= len(content):
            # Checksum, length and type of each record; these are all in the first block.
            length, kind = struct.unpack_from("<xxxxHB", content, start)
            assert kind == 1
            if start + 7 + length > len(content):
                break
            records.append(Record.FromString(content[start + 7 : start + 7 + length]))
            start += 7 + length
        if records and records[-1].WhichOneof("record_type") == "exit":
            return records
        time.sleep(0.1)
    raise AssertionError("W&B has not ended the file in a minute")


@pytest.mark.slow
def test_wandb_has_the_curves_and_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOGGERS_VARIABLE, "wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    log_twice(tmp_path)
    (file,) = tmp_path.glob("wandb/offline-run-*/run-small-0123456789abcdef.wandb")
    rows, settings = [], {}
    for record in wandb_records(file):
        settings |= {update.key: json.loads(update.value_json) for update in record.run.config.update}
        row = {item.nested_key[0] if item.nested_key else item.key: item.value_json for item in record.history.item}
        rows += [(int(row["_step"]), float(row["train/loss"]))] if row else []
    assert rows == [(10, 2.5), (20, 2.0)]
    assert settings["objective"] == "md4" and settings["train"] == {"steps": 40}


@pytest.mark.slow
def test_mlflow_has_the_curves_and_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    monkeypatch.setenv(LOGGERS_VARIABLE, "mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    log_twice(tmp_path / "logs/events/small")
    client = MlflowClient(f"sqlite:///{tmp_path / 'logs/mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("mdpipe").experiment_id])
    assert run.info.run_name == "small" and run.info.status == "FINISHED"
    assert run.data.params == {"train.steps": "40", "objective": "md4"}
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(point.step, point.value) for point in history] == [(10, 2.5), (20, 2.0)]


def test_unknown_logger_is_refused_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOGGERS_VARIABLE, "tensorboard, wandbb")
    with pytest.raises(ValueError, match=r"MDPIPE_LOGGERS has 'wandbb' \(did you mean 'wandb'\?\); the loggers are "):
        log_twice(tmp_path)


def test_logger_that_is_not_installed_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dvclive.live", None)
    monkeypatch.setenv(LOGGERS_VARIABLE, "dvclive")
    with pytest.raises(ValueError, match=r"has dvclive, which needs dvclive.live: `pip install 'mdpipe\[dvclive\]'`"):
        log_twice(tmp_path)


def test_without_tensorboard_only_the_console_logs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    log_twice(tmp_path)
    assert capfd.readouterr().err.count("\n") == 2 and not list(tmp_path.iterdir())


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
