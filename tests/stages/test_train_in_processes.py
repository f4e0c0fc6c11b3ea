"""`mdpipe train` starts as many processes as params.yaml asks for, and what they write together is one run."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from typer.testing import Result

from mdpipe.params import Params, parse_params
from mdpipe.stages.train import train as train_here
from tests.stages.conftest import SMOKE

pytestmark = pytest.mark.slow

SRC = Path(__file__).parents[2] / "src"


@pytest.fixture
def train(place: Path, mdpipe: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Return a function that runs `mdpipe train` here with settings of `hardware`; it starts processes for more."""
    monkeypatch.setenv("PYTHONPATH", str(SRC))

    def train(run: str, **hardware: object) -> Result:
        params = yaml.safe_load(SMOKE.read_text())
        params["runs"][run]["hardware"] = hardware
        (place / "params.yaml").write_text(yaml.safe_dump(params))
        return mdpipe("train", run)

    return train


@pytest.mark.parametrize(("run", "strategy"), [("subwords_genmd4", "fsdp"), ("digits", "ddp")])
def test_two_processes_write_the_run_of_one_up_to_rounding(place, train, capfd, run, strategy):
    """GenMD4 with dropout, sharded; a U-Net that is told classes, replicated."""
    files = [
        place / f"models/{run}/model.safetensors",
        place / f"metrics/train/{run}.json",
        place / f"records/train/{run}.json",
    ]
    weights, metrics = load_file(files[0]), json.loads(files[1].read_text())
    for file in files:
        file.unlink()
    done = train(run, num_processes=2, strategy=strategy, precision="float32")
    assert done.exit_code == 0, done.output
    assert capfd.readouterr().err.count("step 30/30") == 1
    found = json.loads(files[1].read_text())
    assert found.pop("final_loss") == pytest.approx(metrics.pop("final_loss"), abs=0.02)
    assert found == metrics
    for name, weight in load_file(files[0]).items():
        torch.testing.assert_close(weight, weights[name], rtol=0, atol=2e-2, msg=name)


@pytest.mark.parametrize("run", ["chars_md4", "digits"])
def test_a_run_of_two_processes_is_evaluated_by_one(place, mdpipe, run):
    """The stage starts no processes: their number is a setting of training, and changes no byte of an evaluation."""
    files = [place / f"metrics/evaluate/{run}.json", place / f"evaluations/{run}.npy"]
    expected = [file.read_bytes() for file in files]
    params = yaml.safe_load(SMOKE.read_text())
    params["runs"][run]["hardware"] = {"num_processes": 2}
    (place / "params.yaml").write_text(yaml.safe_dump(params))
    for file in files:
        file.unlink()
    done = mdpipe("evaluate", run)
    assert done.exit_code == 0, done.output
    assert [file.read_bytes() for file in files] == expected


LEFT_BEHIND = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "3",
    "MASTER_ADDR": "nowhere.invalid",
    "MASTER_PORT": "1",
    "SLURM_PROCID": "3",
    "SLURM_NTASKS": "4",
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_SIZE": "4",
    "CUDA_VISIBLE_DEVICES": "",
}
"""What an interactive job of Slurm, mpirun and scripts for torchrun leave in a shell."""


def test_variables_left_by_another_launcher_change_nothing(place, params, monkeypatch):
    file = place / "models/chars_md4/model.safetensors"
    weights = file.read_bytes()
    file.unlink()
    for name, value in LEFT_BEHIND.items():
        monkeypatch.setenv(name, value)
    train_here(params, "chars_md4")
    assert file.read_bytes() == weights


def with_processes(number: int) -> Params:
    content = yaml.safe_load(SMOKE.read_text())
    content["runs"]["chars_md4"]["hardware"] = {"num_processes": number}
    return parse_params(content)


def test_another_launcher_is_refused_with_what_to_unset(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"WORLD_SIZE = 2 is of another launcher: `unset RANK LOCAL_RANK WORLD_SIZE`"):
        train_here(with_processes(2), "chars_md4")


@pytest.mark.parametrize("nodes", ["0", "1:2", "", "3"])
def test_a_number_of_machines_that_cannot_be_says_what_to_unset(monkeypatch, nodes):
    monkeypatch.setenv("PET_NNODES", nodes)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(ValueError, match=r"PET_NNODES = '?[\d:]*'? .*unset"):
        train_here(with_processes(2), "chars_md4")


def test_a_batch_that_cannot_be_divided_is_refused_and_says_so(train):
    done = train("chars_md4", num_processes=3)
    assert done.exit_code == 1
    assert "runs.chars_md4.train.batch_size: 8 is refused: must be a multiple of 3" in done.output
    assert "\n" not in done.output.strip()
