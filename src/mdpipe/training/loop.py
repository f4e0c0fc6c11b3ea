"""The training loop.

A run is a function of its settings, data and seed: stopped at any moment and started again, it ends with equal bytes.

Letters: B examples of the batch, L positions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from mdpipe.diffusion.denoiser import Denoiser
from mdpipe.diffusion.noise import Noise, stratified_times
from mdpipe.diffusion.objectives.base import Objective
from mdpipe.networks.determinism import make_deterministic
from mdpipe.networks.dropout import Droppable, WithDropout
from mdpipe.training.checkpoint import load_checkpoint, save_checkpoint
from mdpipe.training.history import HistoryRow
from mdpipe.training.lock import held
from mdpipe.training.optimizer import clip_gradient, learning_rate_at, set_learning_rate
from mdpipe.training.progress import Meter, Progress, print_line, print_progress
from mdpipe.training.state import TrainingState

if TYPE_CHECKING:
    from mdpipe.params import HardwareSettings, TrainSettings


@dataclass(frozen=True)
class Batch:
    """What a step learns from."""

    tokens: Tensor
    """(B, L) int64."""
    condition: Tensor | None = None
    """(B,) int64, the classes that the network is told, or None where it is told none."""


@dataclass(frozen=True)
class TrainResult:
    """What training leaves behind."""

    weights: dict[str, Tensor]
    """The network's state with the averaged weights, float32 on the CPU: what is evaluated and sampled from."""
    objective_weights: dict[str, Tensor]
    """The same of what the objective learns itself; empty for most."""
    history: list[HistoryRow]


def train(
    network: nn.Module,
    objective: Objective,
    batches: Callable[[int], Batch],
    settings: "TrainSettings",
    hardware: "HardwareSettings",
    *,
    noise: Noise,
    scratch: Path,
    fingerprint: str,
    report: Callable[[Progress], None] = print_progress,
) -> TrainResult:
    """Train for `settings.steps` steps, from the start or from the scratch folder's checkpoint.

    Args:
        network: a denoiser on the device to train on, with its initial weights; it holds the last ones afterwards.
        objective: gives the loss to be minimised. It is moved to the network's device, and holds the last values of its
            own parameters afterwards.
        batches: the batch of step k = 0, 1, ...; the same whenever it is asked.
        settings: optimizer and length.
        hardware: threads and precision.
        noise: source of the times and masks.
        scratch: folder of the run's checkpoints. While another process trains in it, this one waits.
        fingerprint: of all that the result depends on; checkpoints with another are refused.
        report: called every few seconds, and after the last step.

    Raises:
        NonFiniteLossError: a loss or gradient was not finite; the last good checkpoint stays.
        FingerprintMismatchError: the scratch folder belongs to another run.
    """
    make_deterministic(hardware.threads)
    network.train()
    with held(scratch, print_line):
        state = TrainingState(network, objective, settings)
        if checkpoint := load_checkpoint(scratch, fingerprint):
            state.restore(checkpoint)
            print_line(f"going on from the checkpoint of step {state.step} of {settings.steps}")
        meter = Meter(state.step, settings.steps)
        while state.step < settings.steps:
            batch = batches(state.step)
            _take_step(state, batch, settings, hardware, noise)
            meter.count(batch.tokens.numel())
            finished = state.step == settings.steps
            if meter.due() or finished:
                state.record.check(state.step)
                loss = state.record.loss(meter.reported_step, state.step)
                report(meter.read(state.step, loss, learning_rate_at(state.step - 1, settings)))
            if state.step % settings.checkpoint_every == 0 or finished:
                state.record.check(state.step)
                save_checkpoint(scratch, state.checkpoint(), fingerprint)
        return TrainResult(*state.averaged_weights(), state.record.rows())


def _take_step(
    state: TrainingState, batch: Batch, settings: "TrainSettings", hardware: "HardwareSettings", noise: Noise
) -> None:
    """One step of Alg. 1: times spread evenly over the batch, masks for each example, one update."""
    parameters = list(state.network.parameters())
    device = parameters[0].device
    tokens_BL = batch.tokens.to(device)
    condition_B = None if batch.condition is None else batch.condition.to(device)
    size, length = tokens_BL.shape
    examples_B = torch.arange(size, device=device)
    times_B = stratified_times(noise, state.step, examples_B, size)
    uniforms_BK = noise.uniform(state.step, examples_B, state.objective.loss_uniforms(length))
    denoiser = _with_dropout(state.network, noise, state.step, examples_B)
    with torch.autocast(device.type, torch.bfloat16, enabled=hardware.precision == "bfloat16"):
        losses_B = state.objective.loss(denoiser, tokens_BL, times_B, uniforms_BK, condition_B)
    loss = losses_B.mean() / length
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    gradient_norm = clip_gradient(parameters, settings.gradient_clip)
    set_learning_rate(state.optimizer, learning_rate_at(state.step, settings))
    state.optimizer.step()
    state.update_averages()
    state.record.write(state.step, loss, gradient_norm)
    state.step += 1


def _with_dropout(network: nn.Module, noise: Noise, step: int, examples: Tensor) -> Denoiser:
    droppable = cast("Droppable", network)
    if not droppable.dropout_channels:
        return cast("Denoiser", network)
    # A purpose of its own: the masks' numbers would say which channels are dropped.
    uniforms = Noise(noise.seed, f"{noise.purpose}/dropout").uniform(step, examples, droppable.dropout_channels)
    return WithDropout(droppable, uniforms)
