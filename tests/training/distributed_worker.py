"""A process of distributed runs: `python distributed_worker.py PHASES`, started by `launch`.

Most of the time of a process goes into its start, so the processes of one launch train all runs. In each phase some of
them form a world, as if torchrun had started only them.
The main process of a world writes the results; each process writes its log, and the number of bytes that it read of a
sharded checkpoint.
"""

import json
import os
import shutil
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, suppress
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import safetensors
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed import PrefixStore, Store, TCPStore

from mdpipe.console import configure_logging
from mdpipe.diffusion.objectives.genmd4 import GenMD4
from mdpipe.diffusion.objectives.md4 import MD4
from mdpipe.params import HardwareConfig
from mdpipe.params.diffusion import GenMD4Config, MD4Config
from mdpipe.training import distributed, metrics
from mdpipe.training.distributed import World, init_distributed
from tests.training.interrupted_run import MUON, RECIPE, RECIPE_NETWORK, SETTINGS, VOCABULARY, batch, tiny_run

OBJECTIVES = {
    "md4": lambda: MD4(MD4Config(), VOCABULARY),
    "genmd4": lambda: GenMD4(GenMD4Config(), VOCABULARY),
}


class Counted:
    """A safetensors file, or a tensor in it, that counts the bytes of the slices that are taken."""

    bytes_read = 0

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __enter__(self) -> "Counted":
        return Counted(self.inner.__enter__())

    def __exit__(self, *raised: object) -> None:
        self.inner.__exit__(*raised)

    def get_slice(self, name: str) -> "Counted":
        return Counted(self.inner.get_slice(name))

    def __getitem__(self, slices: Any) -> Tensor:
        tensor: Tensor = self.inner[slices]
        Counted.bytes_read += tensor.nbytes
        return tensor


RECIPES = {"paper": SETTINGS, "network": SETTINGS, "muon": MUON, "recipe": RECIPE}

Options = dict[str, Any]
"""Of a run: `objective`, the `recipe` if not the paper's, the settings of `hardware`, the `device` if not the CPU, a
`start` from sharded checkpoints of another run (its folder and their steps), whether the newest one is `damaged`, and
`stop_at`, a step in which all processes end the run."""


class StoppedError(Exception):
    """The run reached the step in which it ends."""


class Phase(NamedTuple):
    """Runs that some processes of a launch train one after another, each in a folder."""

    ranks: list[int]
    """The processes that form the world."""
    runs: dict[str, Options]
    in_group: bool = True
    """False for one process that no launcher has started."""


def main(runs: Mapping[Path, Options]) -> None:
    """Train each run, as one of the processes of torchrun's environment variables."""
    with init_distributed() as world:
        if world.size > 1:  # Clocks differ: one process finds a log due at every step, the others never do.
            metrics.LOG_SECONDS = 0 if world.rank == 1 else sys.maxsize
        for folder, options in runs.items():
            folder.mkdir(parents=True, exist_ok=True)
            if world.is_main_process:
                copy_start(folder, options)
            world.barrier()
            log = (folder / f"log-{world.rank}.txt").open("a")
            with log, redirect_stderr(log), suppress(StoppedError):
                train(folder, options, world)


def copy_start(folder: Path, options: Options) -> None:
    """Copy the checkpoints that the run starts in. Damage is in a file that the main process does not read."""
    source, steps = options.get("start", ("", []))
    for step in steps:
        name = f"checkpoints/step-{step:09}.sharded"
        shutil.copytree(Path(source) / name, folder / name)
    if options.get("damaged"):
        file = sharded_files(folder)[1]
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)


def sharded_files(folder: Path) -> list[Path]:
    """Return the files of the checkpoint of step 6, one per process."""
    return sorted((folder / "checkpoints/step-000000006.sharded").glob("*.safetensors"))


def train(folder: Path, options: Options, world: World) -> None:
    """Train the tiny run with these options, and write its weights and losses."""
    Counted.bytes_read = 0

    def batches(step: int) -> Tensor:
        (folder / f"read-{world.rank}.json").write_text(json.dumps(Counted.bytes_read))
        if step == options.get("stop_at"):
            raise StoppedError
        return batch(step)

    result = tiny_run(
        folder / "checkpoints",
        batches,
        settings=RECIPES[options.get("recipe", "paper")],
        network_settings=RECIPE_NETWORK if options.get("recipe") == "network" else None,
        hardware=HardwareConfig(**options["hardware"]),
        objective=OBJECTIVES[options["objective"]](),
        device=options.get("device", "cpu"),
        world=world,
    )
    if world.is_main_process:
        learned = {f"objective.{name}": tensor for name, tensor in result.objective_weights.items()}
        save_file({**result.weights, **learned}, folder / "weights.safetensors")
        (folder / "losses.json").write_text(json.dumps([row.loss for row in result.history]))


def take_part(number: int, phase: Phase, rank: int, store: Store) -> None:
    """Train the runs of a phase as one of its processes, whose group keeps its keys in the launcher's store apart."""
    own = PrefixStore(f"phase {number}", store), phase.ranks.index(rank), len(phase.ranks)
    with patch.object(distributed, "rendezvous", lambda _: iter([own])), patch.dict(os.environ):
        if not phase.in_group:
            del os.environ["TORCHELASTIC_RUN_ID"]
        main({Path(folder): options for folder, options in phase.runs.items()})


if __name__ == "__main__":
    configure_logging()
    opened = safetensors.safe_open
    safetensors.safe_open = lambda *where, **how: Counted(opened(*where, **how))
    rank = int(os.environ["RANK"])
    store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
    for number, phase in enumerate(json.loads(sys.argv[1])):
        if rank in Phase(*phase).ranks:
            take_part(number, Phase(*phase), rank, store)
