"""However many real processes share a run, and in however many parts each takes its rows, the same model is trained."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.training import one_of_several

ROOT = Path(__file__).parents[2]
SIX_DIGITS = {"rtol": 0, "atol": 1e-6}
"""For losses of one to three bits, in float32."""
FOUR_DIGITS = {"rtol": 0, "atol": 1e-4}
"""For weights of about 1: Adam divides by the gradient's size, which makes more of a last digit."""


def options(processes: int = 1, strategy: str = "ddp", micro_batches: int = 1, **others: Any) -> dict[str, Any]:
    hardware = {"processes": processes, "strategy": strategy, "micro_batches": micro_batches}
    return {"objective": "md4", "hardware": hardware, **others}


@pytest.fixture(autouse=True)
def found_by_every_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), str(ROOT)]))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What one process makes of each objective, with its whole batch at once."""
    folders = {objective: tmp_path_factory.mktemp(objective) for objective in one_of_several.OBJECTIVES}
    for objective, folder in folders.items():
        one_of_several.main(folder, options(objective=objective))
    return folders


def assert_same(found: Path, expected: Path) -> None:
    losses = [torch.tensor(json.loads((folder / "losses.json").read_text())) for folder in (found, expected)]
    torch.testing.assert_close(*losses, **SIX_DIGITS)
    weights, wanted = (load_file(folder / "weights.safetensors") for folder in (found, expected))
    assert weights.keys() == wanted.keys()
    for name, weight in wanted.items():
        torch.testing.assert_close(weights[name], weight, **FOUR_DIGITS, msg=name)


@pytest.mark.parametrize("objective", one_of_several.OBJECTIVES)
def test_a_batch_taken_in_parts_trains_the_model_that_a_whole_one_trains(alone, tmp_path, objective):
    one_of_several.main(tmp_path, options(1, "ddp", 4, objective=objective))
    assert_same(tmp_path, alone[objective])


@pytest.mark.parametrize("shares", [(2, "ddp", 2), (4, "ddp", 1), (2, "fsdp", 1), (2, "fsdp", 2)], ids=str)
def test_several_processes_train_the_model_that_one_trains(alone, tmp_path, shares):
    one_of_several.start(tmp_path, options(*shares))
    assert_same(tmp_path, alone["md4"])


def test_muon_makes_whole_matrices_orthogonal_that_are_spread_over_processes(tmp_path):
    """It computes in bfloat16, hence fewer digits agree."""
    one_of_several.main(tmp_path / "one", options(muon=True))
    one_of_several.start(tmp_path / "two", options(2, "fsdp", muon=True))
    one, two = (load_file(tmp_path / name / "weights.safetensors") for name in ("one", "two"))
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=0, atol=1e-2, msg=name)


@pytest.mark.parametrize("shares", [(2, "ddp", 1), (2, "fsdp", 1)], ids=str)
def test_what_an_objective_learns_is_shared_as_well(alone, tmp_path, shares):
    one_of_several.start(tmp_path, options(*shares, objective="genmd4"))
    assert_same(tmp_path, alone["genmd4"])


@pytest.mark.parametrize(("before", "after"), [((2, "fsdp"), (1, "ddp")), ((2, "ddp"), (2, "fsdp"))], ids=str)
def test_a_run_goes_on_among_another_number_of_processes(alone, tmp_path, before, after, capfd):
    with pytest.raises(SystemExit) as stopped:
        one_of_several.start(tmp_path, options(*before, stop_at=7))
    assert stopped.value.code == 75
    one_of_several.start(tmp_path, options(*after))
    assert "going on from the checkpoint of step 6 of 12" in capfd.readouterr().err
    assert_same(tmp_path, alone["md4"])


def test_two_machines_meet_where_they_are_told_to(alone, tmp_path):
    """Each is started by itself, as srun does; here both are this one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meeting = {"PET_NNODES": "2", "PET_RDZV_ENDPOINT": f"127.0.0.1:{port}", "PET_RDZV_ID": "both"}
    asked = json.dumps(options(processes=2))
    program = (
        "import json, pathlib, sys; from tests.training.one_of_several import start;"
        " start(pathlib.Path(sys.argv[1]), json.loads(sys.argv[2]))"
    )
    command = [sys.executable, "-c", program, str(tmp_path), asked]
    machines = [subprocess.Popen(command, env={**os.environ, **meeting}) for _ in range(2)]
    assert [machine.wait(timeout=120) for machine in machines] == [0, 0]
    assert_same(tmp_path, alone["md4"])
