"""A process of distributed runs, started by `launch`: `python distributed_worker.py RUNS`.

RUNS is JSON: the folder of each run and its options: `objective`, whether to use `muon`, the settings of `hardware`,
the `device` if it is not the CPU, and `stop_at`, a step in which all processes end with status 75.
The runs are trained one after another, since most of the time of a process goes into its start.
The main process writes the results; each process writes its log, and the number of bytes that it read of a sharded
checkpoint.
"""

import json
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import save_file
from torch import Tensor

from mdpipe.console import configure_logging
from mdpipe.diffusion.objectives.genmd4 import GenMD4
from mdpipe.diffusion.objectives.md4 import MD4
from mdpipe.params import HardwareConfig
from mdpipe.params.diffusion import GenMD4Config, MD4Config
from mdpipe.training import metrics
from mdpipe.training.distributed import World, init_distributed, launch
from tests.training.interrupted_run import MUON, SETTINGS, VOCABULARY, batch, tiny_run

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


Options = dict[str, Any]


def main(runs: Mapping[Path, Options]) -> None:
    """Train each run, as one of the processes of torchrun's environment variables."""
    with init_distributed() as world:
        if world.size > 1:  # Clocks differ: one process finds a log due at every step, the others never do.
            metrics.LOG_SECONDS = 0 if world.rank == 1 else sys.maxsize
        for folder, options in runs.items():
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / f"log-{world.rank}.txt").open("a") as log, redirect_stderr(log):
                train(folder, options, world)


def train(folder: Path, options: Options, world: World) -> None:
    """Train the tiny run with these options, and write its weights and losses."""
    Counted.bytes_read = 0

    def batches(step: int) -> Tensor:
        (folder / f"read-{world.rank}.json").write_text(json.dumps(Counted.bytes_read))
        if step == options.get("stop_at"):
            sys.exit(75)
        return batch(step)

    result = tiny_run(
        folder / "checkpoints",
        batches,
        settings=MUON if options.get("muon") else SETTINGS,
        hardware=HardwareConfig(**options["hardware"]),
        objective=OBJECTIVES[options["objective"]](),
        device=options.get("device", "cpu"),
        world=world,
    )
    if world.is_main_process:
        learned = {f"objective.{name}": tensor for name, tensor in result.objective_weights.items()}
        save_file({**result.weights, **learned}, folder / "weights.safetensors")
        (folder / "losses.json").write_text(json.dumps([row.loss for row in result.history]))


def start(runs: Mapping[Path, Options]) -> None:
    """Launch the processes of the runs, the same number for all, and wait for them."""
    (num_processes,) = {options["hardware"]["num_processes"] for options in runs.values()}
    job = json.dumps([[str(folder), options] for folder, options in runs.items()])
    launch(num_processes, [sys.executable, __file__, job])


if __name__ == "__main__":
    configure_logging()
    opened = safetensors.safe_open
    safetensors.safe_open = lambda *where, **how: Counted(opened(*where, **how))
    main({Path(folder): options for folder, options in json.loads(sys.argv[1])})
