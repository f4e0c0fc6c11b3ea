"""However many real processes share a run, and in however many parts each takes its rows, the same model is trained."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.training import distributed_worker

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SIX_DIGITS = {"rtol": 0, "atol": 3e-6}
"""For losses of one to three bits, in float32."""
FOUR_DIGITS = {"rtol": 0, "atol": 1e-4}
"""For weights of about 1: Adam divides by the gradient's size, which makes more of a last digit."""

NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def options(
    processes: int = 1, strategy: str = "ddp", micro_batches: int = 1, compile: bool = False, **others: Any
) -> dict[str, Any]:
    hardware = {"processes": processes, "strategy": strategy, "micro_batches": micro_batches, "compile": compile}
    return {"objective": "md4", "hardware": hardware, **others}


ALIKE = [(2, "ddp", 2), (4, "ddp", 1), (2, "fsdp", 1), (2, "fsdp", 2)]
COMPILED = [(2, "ddp", 2), (2, "fsdp", 1)]
WITH_MUON = [(2, "ddp", 2), (2, "fsdp", 1), (4, "fsdp", 1)]
LEARNING = [(2, "ddp", 1), (2, "fsdp", 1)]
OF_ONE = [(1, "ddp", 1), (1, "fsdp", 2)]


@pytest.fixture(scope="module", autouse=True)
def found_by_every_process() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), str(ROOT)]))
        yield


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What one process makes of each objective, with its whole batch at once, and of MD4 with Muon."""
    runs = {name: options(objective=name) for name in distributed_worker.OBJECTIVES} | {"muon": options(muon=True)}
    folders = {name: tmp_path_factory.mktemp(name) for name in runs}
    distributed_worker.main({folders[name]: asked for name, asked in runs.items()})
    return folders


STOPPED = {processes: options(processes, "fsdp", stop_at=7) for processes in (2, 4)}
"""They leave sharded checkpoints of steps 3 and 6; those of four processes go on from those of two."""


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict[str, Any]], Path]:
    """What several processes make of a run. All that asks for as many of them is trained in one launch."""
    asked = [options(*shares) for shares in (*ALIKE, *OF_ONE)]
    asked += [options(*shares, muon=True) for shares in WITH_MUON]
    asked += [options(*shares, objective="genmd4") for shares in LEARNING]
    asked += [options(*shares, compile=True) for shares in COMPILED]
    asked += STOPPED.values()  # The last ones, since with them the processes end.
    folders = {json.dumps(run): tmp_path_factory.mktemp("together") for run in asked}
    launched: set[int] = set()

    def find(run: dict[str, Any]) -> Path:
        processes = run["hardware"]["processes"]
        if processes not in launched:
            launched.add(processes)
            if processes == 4:
                copy_checkpoints(find(STOPPED[2]), folders[json.dumps(STOPPED[4])], {3})
            alike = {folders[json.dumps(each)]: each for each in asked if each["hardware"]["processes"] == processes}
            with pytest.raises(SystemExit) if processes in STOPPED else nullcontext() as ended:
                distributed_worker.start(alike)
            assert ended is None or ended.value.code == 75
        return folders[json.dumps(run)]

    return find


@pytest.fixture(scope="module")
def gone_on(together: Callable[[dict[str, Any]], Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What two processes make of the checkpoints that four, two, and two with a damaged file have left."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("four", "two", "damaged")}
    copy_checkpoints(together(STOPPED[4]), folders["four"], {3, 6})
    with pytest.raises(SystemExit):
        distributed_worker.main({folders["four"]: options(stop_at=10)})
    for name in ("two", "damaged"):
        copy_checkpoints(together(STOPPED[2]), folders[name], {3, 6})
    file = sharded_files(folders["damaged"])[1]
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    distributed_worker.start({folder: options(2, "fsdp") for folder in folders.values()})
    return folders


def copy_checkpoints(stopped: Path, folder: Path, steps: set[int]) -> None:
    for step in steps:
        name = f"checkpoints/step-{step:09}.sharded"
        shutil.copytree(stopped / name, folder / name)


def sharded_files(folder: Path) -> list[Path]:
    return sorted((folder / "checkpoints/step-000000006.sharded").glob("*.safetensors"))


def said(folder: Path) -> str:
    """All that the processes of a run have said."""
    return "".join(path.read_text() for path in folder.glob("said-*.txt"))


def assert_same(found: Path, expected: Path) -> None:
    losses = [torch.tensor(json.loads((folder / "losses.json").read_text())) for folder in (found, expected)]
    torch.testing.assert_close(*losses, **SIX_DIGITS)
    weights, wanted = (load_file(folder / "weights.safetensors") for folder in (found, expected))
    assert weights.keys() == wanted.keys()
    for name, weight in wanted.items():
        torch.testing.assert_close(weights[name], weight, **FOUR_DIGITS, msg=name)


def assert_sharded(folder: Path, expected: bool) -> None:
    """Its checkpoints are folders with a file of each process, or else files."""
    sharded = [path.is_dir() for path in (folder / "checkpoints").glob("step-*")]
    assert sharded == [expected] * len(sharded) != []


@pytest.mark.parametrize("run", [*distributed_worker.OBJECTIVES, "muon"])
def test_gradient_accumulation_trains_the_same_model(alone, tmp_path, run):
    changes = {"muon": True} if run == "muon" else {"objective": run}
    distributed_worker.main({tmp_path: options(1, "ddp", 4, **changes)})
    assert_same(tmp_path, alone[run])


@pytest.mark.parametrize("shares", ALIKE, ids=str)
def test_several_processes_train_the_model_that_one_trains(alone, together, shares):
    assert_same(together(options(*shares)), alone["md4"])


@pytest.mark.parametrize("shares", COMPILED, ids=str)
def test_compiled_layers_work_with_ddp_and_fsdp2(alone, together, shares):
    assert_same(together(options(*shares, compile=True)), alone["md4"])


@pytest.mark.parametrize("shares", WITH_MUON, ids=str)
def test_muon_trains_the_same_model_in_any_number_of_processes(alone, together, shares):
    assert_same(together(options(*shares, muon=True)), alone["muon"])


@pytest.mark.parametrize("shares", LEARNING, ids=str)
def test_objective_parameters_are_trained_by_all_processes(alone, together, shares):
    assert_same(together(options(*shares, objective="genmd4")), alone["genmd4"])


@pytest.mark.parametrize("shares", OF_ONE, ids=str)
def test_group_of_one_trains_the_same_model(alone, together, shares):
    folder = together(options(*shares))
    assert_same(folder, alone["md4"])
    assert_sharded(folder, shares[1] == "fsdp")


@NEEDS_GPU
@pytest.mark.parametrize("shares", OF_ONE, ids=str)
def test_group_of_one_uses_ddp_and_fsdp2_on_one_gpu(alone, tmp_path, shares):
    distributed_worker.start({tmp_path: options(*shares, device="cuda")})
    assert_same(tmp_path, alone["md4"])
    assert_sharded(tmp_path, shares[1] == "fsdp")


@NEEDS_GPU
@pytest.mark.parametrize("change", [{"compile": True}, {"recompute": True}, {"precision": "bfloat16"}], ids=str)
def test_gpu_losses_match_the_cpu_in_every_mode(alone, tmp_path, change):
    distributed_worker.main({tmp_path: {"objective": "md4", "hardware": change, "device": "cuda"}})
    found, wanted = (json.loads((folder / "losses.json").read_text()) for folder in (tmp_path, alone["md4"]))
    assert found == pytest.approx(wanted, abs=2e-2 if "precision" in change else 1e-5)


def test_run_resumes_in_another_number_of_processes(alone, together, gone_on):
    """Whatever the form in which those before it have left their checkpoint: two, four, one and two processes."""
    assert said(together(STOPPED[4])).count("resuming from the checkpoint of step 3 of 12") == 1
    for step in (6, 9):
        assert said(gone_on["four"]).count(f"resuming from the checkpoint of step {step} of 12") == 1
    assert_same(gone_on["four"], alone["md4"])


def test_process_reads_only_its_own_shard_of_a_checkpoint(alone, together, gone_on):
    """And every one what none has a part of, such as AdamW's count of steps."""
    stored = [load_file(file) for file in sharded_files(together(STOPPED[2]))]
    spread = stored[0].keys() & stored[1].keys()
    assert {"network/embedding.weight", "optimizer/0.0.exp_avg", "ema/embedding.weight"} <= spread
    in_parts = sum(part[name].nbytes for part in stored for name in spread)
    by_all = sum(tensor.nbytes for part in stored for name, tensor in part.items() if name not in spread)
    read = [json.loads((gone_on["two"] / f"read-{rank}.json").read_text()) for rank in range(2)]
    assert sum(read) == in_parts + 2 * by_all
    assert max(read) < 0.6 * (in_parts + by_all)
    assert_same(gone_on["two"], alone["md4"])


def test_all_processes_skip_a_checkpoint_that_one_finds_corrupt(alone, gone_on):
    """It is not the one that leads."""
    assert "step-000000006.sharded cannot be read" in said(gone_on["damaged"])
    assert "resuming from the checkpoint of step 3 of 12" in said(gone_on["damaged"])
    assert_same(gone_on["damaged"], alone["md4"])


def test_two_machines_rendezvous(alone, tmp_path):
    """Each is started by itself, as srun does; here both are this one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meeting = {"PET_NNODES": "2", "PET_RDZV_ENDPOINT": f"127.0.0.1:{port}", "PET_RDZV_ID": "both"}
    asked = json.dumps(options(processes=2))
    program = (
        "import json, pathlib, sys; from tests.training.distributed_worker import start;"
        " start({pathlib.Path(sys.argv[1]): json.loads(sys.argv[2])})"
    )
    command = [sys.executable, "-c", program, str(tmp_path), asked]
    machines = [subprocess.Popen(command, env={**os.environ, **meeting}) for _ in range(2)]
    assert [machine.wait(timeout=120) for machine in machines] == [0, 0]
    assert_same(tmp_path, alone["md4"])
