"""Any number of processes and micro-batches trains the same model."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed import HashStore

from mdpipe.training import distributed
from mdpipe.training.distributed import launch, wait_for_start
from tests.training import distributed_worker
from tests.training.distributed_worker import Phase

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


def name_runs(*every: tuple[int, str, int], **changes: Any) -> dict[str, dict[str, Any]]:
    """Return runs with each of the (processes, strategy, micro-batches), by the names of their folders."""
    return {"-".join(map(str, (*shares, *changes, *changes.values()))): options(*shares, **changes) for shares in every}


EQUIVALENT = name_runs((2, "ddp", 2), (4, "ddp", 1), (2, "fsdp", 1), (2, "fsdp", 2))
COMPILED = name_runs((2, "ddp", 2), (2, "fsdp", 2), compile=True)  # Of one shape, so that the second reuses code.
WITH_MUON = name_runs((2, "ddp", 2), (2, "fsdp", 1), (4, "fsdp", 1), recipe="muon")
WITH_RECIPE = name_runs((2, "ddp", 2), (4, "fsdp", 1), recipe="recipe")
WITH_NETWORK = name_runs((2, "ddp", 2), (4, "fsdp", 1), recipe="network")
WITH_GENMD4 = name_runs((2, "ddp", 1), (2, "fsdp", 1), objective="genmd4")
GROUPS_OF_ONE = name_runs((1, "ddp", 1), (1, "fsdp", 2))


def phases(folder: Path) -> list[Phase]:
    """Return what four processes train together, in pairs and one alone.

    Runs that stop leave sharded checkpoints of steps 3 and 6, in which others start: from two to four processes, from
    four to one and then to two.
    """

    def start(name: str, *steps: int) -> list[Any]:
        return [str(folder / name), steps]

    def phase(ranks: list[int], runs: dict[str, dict[str, Any]], in_group: bool = True) -> Phase:
        return Phase(ranks, {str(folder / name): run for name, run in runs.items()}, in_group)

    plain = EQUIVALENT | WITH_MUON | WITH_RECIPE | WITH_NETWORK | WITH_GENMD4
    two, four = ({name: run for name, run in plain.items() if run["hardware"]["num_processes"] == n} for n in (2, 4))
    resumed = {
        "from 4": options(2, "fsdp"),
        "from 2": options(2, "fsdp", start=start("stopped 2", 3, 6)),
        "from damaged": options(2, "fsdp", start=start("stopped 2", 3, 6), damaged=True),
    }
    return [
        phase([2, 3], COMPILED),
        phase([0, 1], {**two, "stopped 2": options(2, "fsdp", stop_at=7)}),
        phase([0, 1, 2, 3], {**four, "stopped 4": options(4, "fsdp", stop_at=7, start=start("stopped 2", 3))}),
        phase([2], GROUPS_OF_ONE),
        phase([0], {"from 4": options(stop_at=10, start=start("stopped 4", 3, 6))}, in_group=False),
        phase([0, 1], resumed),
    ]


@pytest.fixture(scope="module", autouse=True)
def pythonpath_of_processes() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), str(ROOT)]))
        yield


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the results of one process, for each objective and for MD4 with other recipes, without micro-batches."""
    runs = {name: options(objective=name) for name in distributed_worker.OBJECTIVES}
    runs |= {name: options(recipe=name) for name in ("muon", "recipe", "network")}
    folders = {name: tmp_path_factory.mktemp(name) for name in runs}
    distributed_worker.main({folders[name]: run for name, run in runs.items()})
    return folders


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder with the results of all runs.

    One launch trains them, on two machines, each of which is started separately, as srun does; here both are this one.
    """
    folder = tmp_path_factory.mktemp("launched")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, distributed_worker.__file__, json.dumps(phases(folder))]
    program = "import sys; from mdpipe.training.distributed import launch; launch(4, sys.argv[1:])"
    paths = [folder / f"machine-{number}.log" for number in range(2)]
    with pytest.MonkeyPatch.context() as patch, ExitStack() as files:
        patch.setenv("PET_NNODES", "2")
        patch.setenv("PET_RDZV_ENDPOINT", f"127.0.0.1:{port}")
        patch.setenv("PET_RDZV_ID", "both")
        machines = [
            subprocess.Popen(
                [sys.executable, "-c", program, *command],
                stdout=files.enter_context(path.open("w")),
                stderr=subprocess.STDOUT,
            )
            for path in paths
        ]
    end = time.monotonic() + 600
    while any(machine.poll() is None for machine in machines):
        if time.monotonic() > end or any(machine.poll() for machine in machines):
            for machine in machines:  # Those left would wait for the one that failed.
                machine.terminate()
                machine.wait()
        time.sleep(0.1)
    if any(machine.poll() for machine in machines):
        pytest.fail("\n".join(f"{path.name}:\n{path.read_text()}" for path in paths), pytrace=False)
    return folder


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
    changes = {"recipe": "muon"} if run == "muon" else {"objective": run}
    distributed_worker.main({tmp_path: options(1, "ddp", 4, **changes)})
    assert_same_model(tmp_path, alone[run])


@pytest.mark.parametrize("name", EQUIVALENT)
def test_several_processes_train_the_model_of_one_process(alone, launched, name):
    assert_same_model(launched / name, alone["md4"])


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_layers_work_with_ddp_and_fsdp2(alone, launched, name):
    assert_same_model(launched / name, alone["md4"])


@pytest.mark.parametrize("name", WITH_MUON | WITH_RECIPE)
def test_muon_trains_the_same_model_in_any_number_of_processes(alone, launched, name):
    """The recipe has NorMuon with cautious decay."""
    assert_same_model(launched / name, alone[name.rpartition("-")[2]])


@pytest.mark.parametrize("name", WITH_NETWORK)
def test_settings_of_the_transformer_train_the_same_model(alone, launched, name):
    assert_same_model(launched / name, alone["network"])


@pytest.mark.parametrize("name", WITH_GENMD4)
def test_objective_parameters_are_trained_by_several_processes(alone, launched, name):
    assert_same_model(launched / name, alone["genmd4"])


@pytest.mark.parametrize("name", GROUPS_OF_ONE)
def test_group_of_one_trains_the_same_model(alone, launched, name):
    assert_same_model(launched / name, alone["md4"])
    assert_sharded(launched / name, "fsdp" in name)


@NEEDS_GPU
@pytest.mark.parametrize("name", GROUPS_OF_ONE)
def test_group_of_one_uses_ddp_and_fsdp2_on_one_gpu(alone, tmp_path, name):
    phase = Phase([0], {str(tmp_path): GROUPS_OF_ONE[name] | {"device": "cuda"}})
    launch(1, [sys.executable, distributed_worker.__file__, json.dumps([phase])])
    assert_same_model(tmp_path, alone["md4"])
    assert_sharded(tmp_path, "fsdp" in name)


@NEEDS_GPU
@pytest.mark.parametrize(
    "change", [{"compile": True}, {"activation_checkpointing": True}, {"precision": "bfloat16"}], ids=str
)
def test_gpu_losses_match_the_cpu_in_every_mode(alone, tmp_path, change):
    distributed_worker.main({tmp_path: {"objective": "md4", "hardware": change, "device": "cuda"}})
    found, wanted = (json.loads((folder / "losses.json").read_text()) for folder in (tmp_path, alone["md4"]))
    assert found == pytest.approx(wanted, abs=2e-2 if "precision" in change else 1e-5)


def test_run_resumes_in_another_number_of_processes(alone, launched):
    """From two to four, from four to one and then to two processes, each reading the checkpoint of the one before."""
    for name, step in (("stopped 4", 3), ("from 4", 6), ("from 4", 9)):
        assert logs(launched / name).count(f"resuming from the checkpoint of step {step} of 12") == 1
    assert_same_model(launched / "from 4", alone["md4"])


def test_process_reads_only_its_own_shard_of_a_checkpoint(alone, launched):
    """All processes read the tensors that are not sharded, such as AdamW's count of steps."""
    stored = [load_file(file) for file in distributed_worker.sharded_files(launched / "stopped 2")]
    sharded = stored[0].keys() & stored[1].keys()
    assert {"network/embedding.weight", "optimizer/0.0.exp_avg", "ema/embedding.weight"} <= sharded
    sharded_bytes = sum(part[name].nbytes for part in stored for name in sharded)
    other_bytes = sum(tensor.nbytes for part in stored for name, tensor in part.items() if name not in sharded)
    read = [json.loads((launched / f"from 2/read-{rank}.json").read_text()) for rank in range(2)]
    assert sum(read) == sharded_bytes + 2 * other_bytes
    assert max(read) < 0.6 * (sharded_bytes + other_bytes)
    assert_same_model(launched / "from 2", alone["md4"])


def test_all_processes_skip_a_checkpoint_that_one_finds_corrupt(alone, launched):
    """The damaged file is not one of the main process."""
    assert "step-000000006.sharded cannot be read" in logs(launched / "from damaged")
    assert "resuming from the checkpoint of step 3 of 12" in logs(launched / "from damaged")
    assert_same_model(launched / "from damaged", alone["md4"])


def test_launch_ends_with_the_status_of_the_process_that_failed():
    """The other one, which would never end, is stopped."""
    program = "import os, sys, time; sys.exit(75) if os.environ['RANK'] == '1' else time.sleep(300)"
    with pytest.raises(SystemExit) as ended:
        launch(2, [sys.executable, "-c", program])
    assert ended.value.code == 75


def test_process_whose_peers_do_not_start_ends_and_names_them(monkeypatch):
    monkeypatch.setattr(distributed, "START_SECONDS", 0.1)
    store = HashStore()
    store.set("started/2", "node2")
    with pytest.raises(TimeoutError, match=rf"of 4 processes.*rank 1, 3 .*run on (node2, )?{socket.gethostname()}"):
        wait_for_start(store, 0, 4)


def test_machine_whose_peers_do_not_start_ends_and_says_so(monkeypatch):
    monkeypatch.setattr(distributed, "JOIN_SECONDS", 1)
    monkeypatch.setenv("PET_NNODES", "2")
    with pytest.raises(TimeoutError, match="PET_NNODES = 2, and fewer machines have started"):
        launch(2, [sys.executable, "-c", "pass"])
