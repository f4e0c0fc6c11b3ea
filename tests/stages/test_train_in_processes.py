"""`mdpipe train` starts as many processes as params.yaml asks for, and what they write together is one run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.stages.conftest import SMOKE

SRC = Path(__file__).parents[2] / "src"


def train(place: Path, run: str, **hardware: object) -> "subprocess.CompletedProcess[str]":
    params = yaml.safe_load(SMOKE.read_text())
    params["runs"][run]["hardware"].update(hardware)
    (place / "params.yaml").write_text(yaml.safe_dump(params))
    command = [sys.executable, "-m", "mdpipe", "train", run]
    environment = {**os.environ, "PYTHONPATH": str(SRC)}
    return subprocess.run(command, env=environment, cwd=place, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(("run", "strategy"), [("pieces", "fsdp"), ("digits", "ddp")])
def test_two_processes_write_the_run_that_one_writes_but_for_last_digits(place, run, strategy):
    """GenMD4 with dropout, sharded; a U-Net that is told classes, replicated."""
    files = [place / f"models/{run}/model.safetensors", place / f"metrics/train/{run}.json"]
    weights, metrics = load_file(files[0]), json.loads(files[1].read_text())
    for file in files:
        file.unlink()
    done = train(place, run, processes=2, strategy=strategy, precision="float32")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("step 30/30") == 1
    found = json.loads(files[1].read_text())
    assert found.pop("final_loss") == pytest.approx(metrics.pop("final_loss"), abs=0.02)
    assert found == metrics
    for name, weight in load_file(files[0]).items():
        torch.testing.assert_close(weight, weights[name], rtol=0, atol=2e-2, msg=name)


def test_a_batch_that_cannot_be_divided_is_refused_and_says_so(place):
    done = train(place, "letters", processes=3)
    assert done.returncode == 1
    assert "train.batch_size = 8 cannot be divided evenly among hardware.processes = 3" in done.stderr
    assert "\n" not in done.stderr.strip()
