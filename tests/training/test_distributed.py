"""Any number of processes and micro-batches trains the same model."""

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
"""For weights of about 1: Adam divides by the gradient's size, which amplifies rounding errors."""

NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def options(
    num_processes: int = 1, strategy: str = "ddp", micro_batches: int = 1, compile: bool = False, **others: Any
) -> dict[str, Any]:
    hardware = {
        "num_processes": num_processes,
        "strategy": strategy,
        "gradient_accumulation_steps": micro_batches,
        "compile": compile,
    }
    return {"objective": "md4", "hardware": hardware, **others}


EQUIVALENT = [(2, "ddp", 2), (4, "ddp", 1), (2, "fsdp", 1), (2, "fsdp", 2)]
COMPILED = [(2, "ddp", 2), (2, "fsdp", 1)]
WITH_MUON = [(2, "ddp", 2), (2, "fsdp", 1), (4, "fsdp", 1)]
WITH_GENMD4 = [(2, "ddp", 1), (2, "fsdp", 1)]
GROUPS_OF_ONE = [(1, "ddp", 1), (1, "fsdp", 2)]


@pytest.fixture(scope="module", autouse=True)
def pythonpath_of_processes() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), str(ROOT)]))
        yield


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the results of one process, for each objective and for MD4 with Muon, without micro-batches."""
    runs = {name: options(objective=name) for name in distributed_worker.OBJECTIVES} | {"muon": options(muon=True)}
    folders = {name: tmp_path_factory.mktemp(name) for name in runs}
    distributed_worker.main({folders[name]: run for name, run in runs.items()})
    return folders


STOPPED = {processes: options(processes, "fsdp", stop_at=7) for processes in (2, 4)}
"""Runs that leave sharded checkpoints of steps 3 and 6; four processes resume from the checkpoints of two."""


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict[str, Any]], Path]:
    """Return a function from a run to its results. All runs with the same number of processes share one launch."""
    runs = [options(*shares) for shares in (*EQUIVALENT, *GROUPS_OF_ONE)]
    runs += [options(*shares, muon=True) for shares in WITH_MUON]
    runs += [options(*shares, objective="genmd4") for shares in WITH_GENMD4]
    runs += [options(*shares, compile=True) for shares in COMPILED]
    runs += STOPPED.values()  # Last, since they end the processes.
    folders = {json.dumps(run): tmp_path_factory.mktemp("together") for run in runs}
    launched: set[int] = set()

    def find(run: dict[str, Any]) -> Path:
        processes = run["hardware"]["num_processes"]
        if processes not in launched:
            launched.add(processes)
            if processes == 4:
                copy_checkpoints(find(STOPPED[2]), folders[json.dumps(STOPPED[4])], {3})
            equal = [each for each in runs if each["hardware"]["num_processes"] == processes]
            with pytest.raises(SystemExit) if processes in STOPPED else nullcontext() as ended:
                distributed_worker.start({folders[json.dumps(each)]: each for each in equal})
            assert ended is None or ended.value.code == 75
        return folders[json.dumps(run)]

    return find


@pytest.fixture(scope="module")
def resumed(together: Callable[[dict[str, Any]], Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the results of two processes that resume from four, from two, and from two with a damaged file."""
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


def logs(folder: Path) -> str:
    """Return the logs of all processes of a run."""
    return "".join(path.read_text() for path in folder.glob("log-*.txt"))


def assert_same_model(found: Path, expected: Path) -> None:
    losses = [torch.tensor(json.loads((folder / "losses.json").read_text())) for folder in (found, expected)]
    torch.testing.assert_close(*losses, **SIX_DIGITS)
    weights, wanted = (load_file(folder / "weights.safetensors") for folder in (found, expected))
    assert weights.keys() == wanted.keys()
    for name, weight in wanted.items():
        torch.testing.assert_close(weights[name], weight, **FOUR_DIGITS, msg=name)


def assert_sharded(folder: Path, expected: bool) -> None:
    """Sharded checkpoints are folders with a file of each process, all others are files."""
    sharded = [path.is_dir() for path in (folder / "checkpoints").glob("step-*")]
    assert sharded == [expected] * len(sharded) != []


@pytest.mark.parametrize("run", [*distributed_worker.OBJECTIVES, "muon"])
def test_gradient_accumulation_trains_the_same_model(alone, tmp_path, run):
    changes = {"muon": True} if run == "muon" else {"objective": run}
    distributed_worker.main({tmp_path: options(1, "ddp", 4, **changes)})
    assert_same_model(tmp_path, alone[run])


@pytest.mark.parametrize("shares", EQUIVALENT, ids=str)
def test_several_processes_train_the_model_of_one_process(alone, together, shares):
    assert_same_model(together(options(*shares)), alone["md4"])


@pytest.mark.parametrize("shares", COMPILED, ids=str)
def test_compiled_layers_work_with_ddp_and_fsdp2(alone, together, shares):
    assert_same_model(together(options(*shares, compile=True)), alone["md4"])


@pytest.mark.parametrize("shares", WITH_MUON, ids=str)
def test_muon_trains_the_same_model_in_any_number_of_processes(alone, together, shares):
    assert_same_model(together(options(*shares, muon=True)), alone["muon"])


@pytest.mark.parametrize("shares", WITH_GENMD4, ids=str)
def test_objective_parameters_are_trained_other_bytes_processes(alone, together, shares):
    assert_same_model(together(options(*shares, objective="genmd4")), alone["genmd4"])


@pytest.mark.parametrize("shares", GROUPS_OF_ONE, ids=str)
def test_group_of_one_trains_the_same_model(alone, together, shares):
    folder = together(options(*shares))
    assert_same_model(folder, alone["md4"])
    assert_sharded(folder, shares[1] == "fsdp")


@NEEDS_GPU
@pytest.mark.parametrize("shares", GROUPS_OF_ONE, ids=str)
def test_group_of_one_uses_ddp_and_fsdp2_on_one_gpu(alone, tmp_path, shares):
    distributed_worker.start({tmp_path: options(*shares, device="cuda")})
    assert_same_model(tmp_path, alone["md4"])
    assert_sharded(tmp_path, shares[1] == "fsdp")


@NEEDS_GPU
@pytest.mark.parametrize(
    "change", [{"compile": True}, {"activation_checkpointing": True}, {"precision": "bfloat16"}], ids=str
)
def test_gpu_losses_match_the_cpu_in_every_mode(alone, tmp_path, change):
    distributed_worker.main({tmp_path: {"objective": "md4", "hardware": change, "device": "cuda"}})
    found, wanted = (json.loads((folder / "losses.json").read_text()) for folder in (tmp_path, alone["md4"]))
    assert found == pytest.approx(wanted, abs=2e-2 if "precision" in change else 1e-5)


def test_run_resumes_in_another_number_of_processes(alone, together, resumed):
    """From two to four, from four to one and then to two processes, each reading the checkpoint of the one before."""
    assert logs(together(STOPPED[4])).count("resuming from the checkpoint of step 3 of 12") == 1
    for step in (6, 9):
        assert logs(resumed["four"]).count(f"resuming from the checkpoint of step {step} of 12") == 1
    assert_same_model(resumed["four"], alone["md4"])


def test_process_reads_only_its_own_shard_of_a_checkpoint(alone, together, resumed):
    """All processes read the tensors that are not sharded, such as AdamW's count of steps."""
    stored = [load_file(file) for file in sharded_files(together(STOPPED[2]))]
    sharded = stored[0].keys() & stored[1].keys()
    assert {"network/embedding.weight", "optimizer/0.0.exp_avg", "ema/embedding.weight"} <= sharded
    sharded_bytes = sum(part[name].nbytes for part in stored for name in sharded)
    other_bytes = sum(tensor.nbytes for part in stored for name, tensor in part.items() if name not in sharded)
    read = [json.loads((resumed["two"] / f"read-{rank}.json").read_text()) for rank in range(2)]
    assert sum(read) == sharded_bytes + 2 * other_bytes
    assert max(read) < 0.6 * (sharded_bytes + other_bytes)
    assert_same_model(resumed["two"], alone["md4"])


def test_all_processes_skip_a_checkpoint_that_one_finds_corrupt(alone, resumed):
    """The damaged file is not one of the main process."""
    assert "step-000000006.sharded cannot be read" in logs(resumed["damaged"])
    assert "resuming from the checkpoint of step 3 of 12" in logs(resumed["damaged"])
    assert_same_model(resumed["damaged"], alone["md4"])


def test_two_machines_rendezvous(alone, tmp_path):
    """Each is started separately, as srun does; here both are this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meeting = {"PET_NNODES": "2", "PET_RDZV_ENDPOINT": f"127.0.0.1:{port}", "PET_RDZV_ID": "both"}
    run = json.dumps(options(num_processes=2))
    program = (
        "import json, pathlib, sys; from tests.training.distributed_worker import start;"
        " start({pathlib.Path(sys.argv[1]): json.loads(sys.argv[2])})"
    )
    command = [sys.executable, "-c", program, str(tmp_path), run]
    machines = [subprocess.Popen(command, env={**os.environ, **meeting}) for _ in range(2)]
    assert [machine.wait(timeout=120) for machine in machines] == [0, 0]
    assert_same_model(tmp_path, alone["md4"])
