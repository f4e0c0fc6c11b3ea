"""The training step that benchmarks measure: that of `mdpipe train`, with settings that need no pydantic.

The settings have the attributes of the models in `mdpipe.params` (tested). They exist because a benchmark also runs on
machines that have little more than torch.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any, cast

from mdpipe.diffusion.noise import Noise
from mdpipe.diffusion.objectives.base import Objective
from mdpipe.networks.base import Network
from mdpipe.training.acceleration import accelerate
from mdpipe.training.parallel import Loss, parallel
from mdpipe.training.peak import wait_for
from mdpipe.training.state import TrainingState
from mdpipe.training.step import Batches, Step
from mdpipe.training.world import World

if TYPE_CHECKING:
    from mdpipe.params import HardwareSettings, TrainSettings


@dataclass(frozen=True)
class AdamW:
    """AdamW with the paper's settings for text8."""

    kind: str = "adamw"
    beta2: float = 0.999
    weight_decay: float = 0.03


@dataclass(frozen=True)
class Muon:
    """Muon with the default suite's settings."""

    kind: str = "muon"
    momentum: float = 0.95
    beta2: float = 0.99
    weight_decay: float = 0.03


OPTIMIZER_SETTINGS: dict[str, AdamW | Muon] = {"adamw": AdamW(), "muon": Muon()}
"""By kind; their numbers do not change what a step costs."""


@dataclass(frozen=True)
class Train:
    """Optimizer and length of a training run."""

    steps: int
    batch_size: int
    learning_rate: float = 3e-4
    warmup_steps: int = 0
    optimizer: AdamW | Muon = OPTIMIZER_SETTINGS["adamw"]
    gradient_clip: float | None = 1.0
    ema_decay: float = 0.9999
    checkpoint_every: int = 1
    keep_checkpoints: int = 1


@dataclass(frozen=True)
class Hardware:
    """How a training run is computed."""

    precision: str
    threads: int
    processes: int = 1
    strategy: str = "ddp"
    micro_batches: int = 1
    compile: bool = False
    recompute: bool = False


def build_step(
    network: Network,
    objective: Objective,
    train: Train,
    hardware: Hardware,
    noise: Noise,
    world: World = World(),  # noqa: B008 (frozen)
) -> Step:
    """Return the step of a new training run, built in the order of `training.loop.train`."""
    settings, machine = cast("TrainSettings", train), cast("HardwareSettings", hardware)
    accelerate(network, objective, machine)
    loss = parallel(Loss(network, objective.to(next(network.parameters()).device)), machine, world)
    return Step(TrainingState(network, objective, settings), loss, settings, machine, noise, world)


def time_steps(step: Step, batches: Batches, groups: int, steps: int = 1) -> list[float]:
    """Return the seconds per step of each group of steps. A GPU is waited for between groups only."""
    seconds = []
    for _ in range(groups):
        wait_for(step.state.device)
        start = perf_counter()
        for _ in range(steps):
            step.take(batches)
        wait_for(step.state.device)
        seconds.append((perf_counter() - start) / steps)
    return seconds


def summarize_speed(seconds: Sequence[float], examples: int, length: int, flops: float, peak: float) -> dict[str, Any]:
    """Return the speed of steps that took `seconds` each.

    Args:
        seconds: of one step, measured several times.
        examples: of a batch.
        length: tokens of an example.
        flops: of a token, as `training_flops` counts them.
        peak: FLOP/s of a large matrix product in the same precision.
    """
    mean = statistics.mean(seconds)
    flops_per_second = flops * examples * length / mean
    return {
        "tokens_per_second": examples * length / mean,
        "examples_per_second": examples / mean,
        "seconds_a_step": mean,
        "seconds_stderr": statistics.stdev(seconds) / len(seconds) ** 0.5 if len(seconds) > 1 else None,
        "flops_per_second": flops_per_second,
        "product_peak": peak,
        "share_of_peak": flops_per_second / peak,
    }
