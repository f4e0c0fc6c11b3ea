"""A training run of a second, and a program that kills its own process (SIGKILL) at given moments.

    python interrupted_run.py FOLDER STEPS MOMENT...

MOMENT is `step:K` (when step K reads its batch), or, while the checkpoint of step K is saved, `half written:K`,
`flushed:K` (before it is renamed) and `named:K` (before an older one is removed). `stuck:K` waits forever in step K
instead. There is one process per moment, one after another, and each resumes the run. `signal N:K` sends the signal N
in a run of its own, in the folder FOLDER/N.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mdpipe.console import configure_logging
from mdpipe.diffusion.objectives.base import Objective
from mdpipe.diffusion.objectives.md4 import MD4
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.networks.base import NetworkSpec, build_network
from mdpipe.params import AdamWConfig, HardwareConfig, MuonConfig, NorMuonConfig, TrainConfig
from mdpipe.params.diffusion import MD4Config
from mdpipe.params.networks import TransformerConfig
from mdpipe.params.training import WarmupStableDecayConfig
from mdpipe.training import checkpoint, metrics
from mdpipe.training.distributed import InterruptedTrainingError
from mdpipe.training.loop import Batch, TrainResult, train

VOCABULARY, LENGTH = 5, 8
SETTINGS = TrainConfig(
    steps=12,
    batch_size=4,
    learning_rate=0.01,
    warmup_steps=3,
    optimizer=AdamWConfig(beta2=0.99, weight_decay=0.01),
    ema_decay=0.9,
    save_every=3,
)
MOMENTS_OF_SAVING = ("half written", "flushed", "named")
MUON = SETTINGS.model_copy(update={"optimizer": MuonConfig(momentum=0.9, beta2=0.99, weight_decay=0.01)})
RECIPE = SETTINGS.model_copy(
    update={
        "optimizer": NorMuonConfig(
            momentum=0.9, beta2=0.99, weight_decay=0.1, cautious_weight_decay=True, learning_rate=0.02
        ),
        "lr_schedule": WarmupStableDecayConfig(shape="1-sqrt"),
        "ema_start": 0.4,
    }
)
"""Everything beyond the paper: NorMuon with its own learning rate, cautious decay, another schedule, a tail EMA."""
RECIPE_NETWORK = {"num_layers": 3, "qk_norm": True, "value_embeddings": 1, "unet_skips": True}
"""The transformer's settings that add parameters."""


def batch(step: int) -> Tensor:
    """Return copies of one token, which depends on the step and the row."""
    tokens = (step + torch.arange(SETTINGS.batch_size)) % VOCABULARY
    return tokens[:, None].expand(-1, LENGTH)


def tiny_run(
    checkpoint_dir: Path,
    batches: Callable[[int], Tensor] = batch,
    settings: TrainConfig = SETTINGS,
    hardware: HardwareConfig = HardwareConfig(),  # noqa: B008 (frozen)
    run_hash: str = "tiny",
    dropout: float = 0.1,
    objective: Objective | None = None,
    device: str = "cpu",
    network_settings: Mapping[str, Any] | None = None,
    **options: Any,
) -> TrainResult:
    """Train a transformer, by default of one layer, on `batches`, with MD4 by default."""
    base = {"num_layers": 1, "num_heads": 2, "hidden_size": 8, "time_conditioning": True, "dropout": dropout}
    config = TransformerConfig.model_validate(base | dict(network_settings or {}))
    network = build_network(NetworkSpec(config, VOCABULARY, (LENGTH,)), seed=0).to(device)
    objective = objective or MD4(MD4Config(), VOCABULARY)
    rng = CounterRNG(0, "train")

    def wrapped(step: int, rows: range) -> Batch:
        return Batch(batches(step)[rows.start : rows.stop])

    return train(
        network,
        objective,
        wrapped,
        settings,
        hardware,
        length=LENGTH,
        rng=rng,
        checkpoint_dir=checkpoint_dir,
        run_hash=run_hash,
        **options,
    )


def die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_while_saving(moment: str, step: int) -> None:
    """Kill the process at a moment of writing the checkpoint of a step."""
    save_file, fsync, save = checkpoint.save_file, checkpoint.fsync, checkpoint.save_checkpoint

    def save_half(tensors: Any, path: Path, **options: Any) -> None:
        save_file(tensors, path, **options)
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size // 2)
        die()

    def fsync_and_die(path: Path) -> None:
        fsync(path)
        if path.is_dir() == (moment == "named"):
            die()

    patches = {
        "half written": ("save_file", save_half),
        "flushed": ("fsync", fsync_and_die),
        "named": ("fsync", fsync_and_die),
    }

    def save_checkpoint(checkpoint_dir: Path, state: checkpoint.Checkpoint, *others: Any) -> None:
        if state.step == step:
            setattr(checkpoint, *patches[moment])
        save(checkpoint_dir, state, *others)

    train.__globals__["save_checkpoint"] = save_checkpoint


def main(checkpoint_dir: Path, steps: int, moment: str, step: int) -> None:
    def batches(current: int) -> Tensor:
        if moment == "step" and current == step:
            die()
        if moment.startswith("signal") and current == step:
            os.kill(os.getpid(), int(moment.split()[1]))
        while moment == "stuck" and current == step:
            (checkpoint_dir / "stuck").touch()
            time.sleep(0.1)
        return batch(current)

    if moment in MOMENTS_OF_SAVING:
        die_while_saving(moment, step)
    try:
        tiny_run(checkpoint_dir, batches, SETTINGS.model_copy(update={"steps": steps}))
    except InterruptedTrainingError as error:
        sys.stderr.write(f"{error}\n")
        sys.stderr.flush()
        os._exit(error.status)


if __name__ == "__main__":
    configure_logging()
    metrics.measure_peak_flops = lambda device, dtype: 1e11  # Measuring the machine would take longer than the run.
    for moment in sys.argv[3:]:
        # A fork starts in no time; before the first one, torch has done nothing that a fork could not carry on.
        if child := os.fork():
            _, status = os.waitpid(child, 0)
            sys.stderr.write(f"{moment} ended with {os.waitstatus_to_exitcode(status)}\n")
        else:
            name, number = moment.split(":")
            folder = Path(sys.argv[1])
            if name.startswith("signal"):
                folder /= name.split()[1]
            main(folder, int(sys.argv[2]), name, int(number))
            os._exit(0)
