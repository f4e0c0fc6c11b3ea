"""The training loop.

A run is a function of its settings, data and seed: stopped at any moment and started again, it ends with equal bytes.

Letters: B examples of the batch, L positions.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from mdpipe.diffusion.noise import Noise
from mdpipe.diffusion.objectives.base import Objective
from mdpipe.networks.base import Network
from mdpipe.networks.runtime import configure_runtime
from mdpipe.training.acceleration import accelerate
from mdpipe.training.checkpoint import load_checkpoint, save_checkpoint
from mdpipe.training.flops import training_flops
from mdpipe.training.history import HistoryRow
from mdpipe.training.interruption import InterruptedTrainingError, noted
from mdpipe.training.lock import held
from mdpipe.training.optimizer import learning_rate_at
from mdpipe.training.parallel import Loss, parallel
from mdpipe.training.peak import bfloat16_problem
from mdpipe.training.progress import Meter, Progress, print_line, print_progress
from mdpipe.training.state import TrainingState
from mdpipe.training.step import Batches, Step
from mdpipe.training.world import World

if TYPE_CHECKING:
    from mdpipe.params import HardwareSettings, TrainSettings


@dataclass(frozen=True)
class TrainResult:
    """What training leaves behind."""

    weights: dict[str, Tensor]
    """The network's state with the averaged weights, float32 on the CPU: what is evaluated and sampled from."""
    objective_weights: dict[str, Tensor]
    """The same of what the objective learns itself; empty for most."""
    history: list[HistoryRow]


def train(
    network: Network,
    objective: Objective,
    batches: Batches,
    settings: "TrainSettings",
    hardware: "HardwareSettings",
    *,
    length: int,
    noise: Noise,
    scratch: Path,
    fingerprint: str,
    report: Callable[[Progress], None] = print_progress,
    world: World = World(),  # noqa: B008 (frozen)
) -> TrainResult:
    """Train for `settings.steps` steps, from the start or from the scratch folder's checkpoint.

    Args:
        network: a denoiser on the device to train on, with its initial weights; it holds the last ones afterwards.
        objective: gives the loss to be minimised. It is moved to the network's device, and holds the last values of its
            own parameters afterwards.
        batches: of step k = 0, 1, ... the rows with these indices in the batch of all processes; the same whenever they
            are asked for.
        settings: optimizer and length.
        hardware: threads and precision, processes and how they share the work.
        length: tokens of an example.
        noise: source of the times and masks.
        scratch: folder of the run's checkpoints. While another process trains in it, this one waits.
        fingerprint: of all that the result depends on; checkpoints with another are refused.
        report: called every few seconds, and after the last step.
        world: the processes of the run; each calls this with equal arguments but for its own world.

    Raises:
        NonFiniteLossError: a loss or gradient was not finite; the last good checkpoint stays.
        FingerprintMismatchError: the scratch folder belongs to another run.
        InterruptedTrainingError: SIGTERM, SIGUSR1 or Ctrl-C came; the last step taken is in a checkpoint.
    """
    configure_runtime(hardware.threads)
    network.train()
    with held(scratch, print_line) if world.leads else nullcontext(), noted() as interruption:
        world.wait_for_all()
        device = next(network.parameters()).device
        flops = training_flops(network, length)
        accelerate(network, objective, hardware)
        loss = parallel(Loss(network, objective.to(device)), hardware, world)
        state = TrainingState(network, objective, settings)
        if checkpoint := load_checkpoint(scratch, fingerprint, state.layout(), world):
            state.restore(checkpoint)
            if world.leads:
                print_line(f"going on from the checkpoint of step {state.step} of {settings.steps}")
        if world.leads and hardware.precision == "bfloat16" and (problem := bfloat16_problem(device)):
            print_line(problem)
        step = Step(state, loss, settings, hardware, noise, world)
        meter = Meter(state, settings.steps, flops, hardware.precision)
        while state.step < settings.steps:
            meter.count(step.take(batches))
            finished = state.step == settings.steps
            # A report may read what is spread over the processes, so they must agree on when it is due.
            due, status = world.largest(int(meter.due()), interruption.status)
            if due or finished:
                state.record.check(state.step)
                progress = meter.read(learning_rate_at(state.step - 1, settings))
                if world.leads:
                    report(progress)
            if state.step % settings.checkpoint_every == 0 or finished or status:
                state.record.check(state.step)
                save_checkpoint(scratch, state.checkpoint(), fingerprint, settings.keep_checkpoints, world)
            if status and not finished:
                raise InterruptedTrainingError(
                    f"interrupted after step {state.step} of {settings.steps}; the same command goes on from there",
                    status,
                )
        return TrainResult(*state.averaged_weights(), state.record.rows())
