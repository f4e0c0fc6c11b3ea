"""The training loop and its step (Alg. 1).

A run is a function of its settings, data and seed: interrupted at any moment and resumed, it ends with the same bytes.

Shapes: B batch (rows of a micro-batch), L length, K uniforms per example, P parameters.
"""

import logging
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from mdpipe.diffusion.denoiser import Denoiser
from mdpipe.diffusion.objectives.base import Objective
from mdpipe.diffusion.rng import CounterRNG, stratified_times
from mdpipe.networks.base import DenoiserWithDropout, Network, get_blocks
from mdpipe.networks.runtime import configure_runtime
from mdpipe.params.training import HardwareConfig, TrainConfig
from mdpipe.training.checkpoint import load_checkpoint, lock_checkpoint_dir, save_checkpoint
from mdpipe.training.distributed import (
    InterruptedTrainingError,
    World,
    global_grad_norms,
    handle_signals,
    parallelize,
    set_gradient_sync,
)
from mdpipe.training.loggers import MetricsLogger, log_to_console
from mdpipe.training.metrics import HistoryRow, MetricsProcessor
from mdpipe.training.optimizer import clip_gradient, learning_rate_at, set_learning_rate
from mdpipe.training.performance import apply_compile_and_checkpointing, find_bfloat16_problem, training_flops
from mdpipe.training.state import TrainingState
from mdpipe.training.validation import Validation, Validator

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batch:
    """Tokens (B, L) int64 and, for class-conditional runs, class labels (B,) int64."""

    tokens: Tensor
    class_labels: Tensor | None = None

    def to_gpu(self, device: torch.device) -> "Batch":
        """Copy it to a GPU from pinned memory, which does not synchronize the GPU."""
        tokens = self.tokens.pin_memory().to(device, non_blocking=True)
        if self.class_labels is None:
            return Batch(tokens)
        return Batch(tokens, self.class_labels.pin_memory().to(device, non_blocking=True))


Batches = Callable[[int, range], Batch]
"""Returns the rows with these global indices in the batch of step k = 0, 1, ...; the same in every call."""


@dataclass(frozen=True)
class TrainResult:
    """The result of a training run: weights for evaluation and sampling, and metrics along the way."""

    weights: dict[str, Tensor]
    """The network's state dict with its EMA, float32 on the CPU."""
    objective_weights: dict[str, Tensor]
    """The same for the objective's own parameters; empty for most objectives."""
    history: list[HistoryRow]
    validations: list[Validation]


def train(
    network: Network,
    objective: Objective,
    batches: Batches,
    settings: TrainConfig,
    hardware: HardwareConfig,
    *,
    length: int,
    rng: CounterRNG,
    checkpoint_dir: Path,
    run_hash: str,
    validator: Validator | None = None,
    log_metrics: MetricsLogger = log_to_console,
    world: World = World(),  # noqa: B008 (frozen)
) -> TrainResult:
    """Train for `settings.steps` steps, from the start or from the newest checkpoint.

    Args:
        network: Denoiser with its initial weights, on the device to train on; it holds the last weights afterwards.
        objective: Its loss is minimized. It is moved to the network's device and holds its last parameters afterwards.
        length: Tokens per example.
        rng: Source of times and masks.
        checkpoint_dir: Folder of the run's checkpoints. If another process trains in it, this one waits.
        run_hash: Hash of everything that the result depends on; checkpoints with another hash are refused.
        validator: Evaluates the averaged weights along the way; its best ones are the result if it keeps them.
        log_metrics: Called on the main process every few seconds and after the last step.
        world: The processes of the run; all call this with the same arguments except `world`.

    Raises:
        NonFiniteLossError: A loss or gradient was not finite; the last good checkpoint stays.
        RunHashMismatchError: The checkpoints belong to another run.
        InterruptedTrainingError: SIGTERM, SIGUSR1 or Ctrl-C was received; a checkpoint of the last step is saved.
    """
    configure_runtime(hardware.threads)
    network.train()
    with lock_checkpoint_dir(checkpoint_dir) if world.is_main_process else nullcontext(), handle_signals() as signals:
        world.barrier()
        flops = training_flops(network, length) / length
        trainer = Trainer(network, objective, settings, hardware, rng, world, validator)
        state = trainer.state
        if checkpoint := load_checkpoint(checkpoint_dir, run_hash, state.sharding_template(), world):
            state.restore(checkpoint)
            if world.is_main_process:
                logger.info("resuming from the checkpoint of step %d of %d", state.step, settings.steps)
        if world.is_main_process and trainer.is_bfloat16 and (problem := find_bfloat16_problem(state.device)):
            logger.warning(problem)
        processor = MetricsProcessor(state, settings.steps, flops, hardware.precision)
        while state.step < settings.steps:
            processor.add_tokens(trainer.train_step(batches))
            is_last = state.step == settings.steps
            # Metrics may read sharded tensors, so all processes must agree on when they are due.
            is_due, status = world.all_reduce_max(int(processor.is_due()), signals.status)
            validation = None
            if validator and validator.is_due(state.step):
                state.history.require_finite(state.step)
                validation = validator.validate(state.step, *state.ema_state_dicts())
            if is_due or is_last or validation:
                state.history.require_finite(state.step)
                metrics = processor.compute(learning_rate_at(state.step - 1, settings), validation)
                if world.is_main_process:
                    log_metrics(metrics)
            if state.step % settings.save_every == 0 or is_last or status:
                state.history.require_finite(state.step)
                save_checkpoint(checkpoint_dir, state.to_checkpoint(), run_hash, settings.save_total_limit, world)
            if status and not is_last:
                raise InterruptedTrainingError(
                    f"interrupted after step {state.step} of {settings.steps}; run the same command to resume", status
                )
        weights = (validator and validator.best_weights()) or state.ema_state_dicts()
        return TrainResult(*weights, state.history.rows(), validator.validations if validator else [])


class Trainer:
    """A training run: its state, and how it takes a step.

    Attributes:
        loss: A LossModule, possibly wrapped by DDP or FSDP2.
        micro_batches: Global row indices that this process computes in turn.
    """

    def __init__(
        self,
        network: Network,
        objective: Objective,
        settings: TrainConfig,
        hardware: HardwareConfig,
        rng: CounterRNG,
        world: World = World(),  # noqa: B008 (frozen)
        validator: Validator | None = None,
    ) -> None:
        apply_compile_and_checkpointing(network, objective, hardware)
        loss = LossModule(network, objective.to(next(network.parameters()).device))
        self.loss = parallelize(loss, get_blocks(network), hardware, world)
        # After that, since FSDP2 replaces the parameters, which the optimizers take.
        self.state = TrainingState(network, objective, settings, validator)
        self.settings, self.world = settings, world
        self.is_bfloat16 = hardware.precision == "bfloat16"
        self.micro_batches = world.local_rows(settings.batch_size, hardware.gradient_accumulation_steps)
        self.time_rng, self.mask_rng, self.dropout_rng = rng.child("times"), rng, rng.child("dropout")

    def train_step(self, batches: Batches) -> int:
        """Take the next step and return the number of tokens in the batch of all processes.

        The loss is in nats per token, at times spread evenly over the global batch.
        """
        state, device = self.state, self.state.device
        for optimizer in state.optimizers:
            optimizer.zero_grad(set_to_none=True)
        losses, tokens = [], 0
        for rows in self.micro_batches:
            batch = batches(state.step, rows)
            if device.type == "cuda":
                batch = batch.to_gpu(device)
            length = batch.tokens.shape[1]
            indices_B = torch.arange(rows.start, rows.stop, device=device)
            t_B = stratified_times(self.time_rng, state.step, indices_B, self.settings.batch_size)
            u_BK = self.mask_rng.uniform(state.step, indices_B, state.objective.num_mask_samples * length)
            dropout_keys = None
            if cast("Network", state.network).dropout > 0:
                dropout_keys = self.dropout_rng.keys(state.step, indices_B)
            if len(self.micro_batches) > 1:
                set_gradient_sync(self.loss, is_last=rows == self.micro_batches[-1])
            with torch.autocast(device.type, torch.bfloat16, enabled=self.is_bfloat16):
                losses_B: Tensor = self.loss(batch.tokens, t_B, u_BK, batch.class_labels, dropout_keys)
            state.objective.require_one_per_example("`loss`", losses_B, len(rows))
            # The mean over this process's rows; gradients are then averaged over the processes.
            loss = (losses_B / length).mean() / len(self.micro_batches)
            loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
            tokens += self.world.size * batch.tokens.numel()
        norms_P = global_grad_norms(state.parameters)
        grad_norm = norms_P[: state.num_network_parameters].norm()
        clip_gradient(state.network.parameters(), grad_norm, self.settings.max_grad_norm)
        set_learning_rate(state.optimizers, learning_rate_at(state.step, self.settings))
        for optimizer in state.optimizers:
            optimizer.step()
        state.ema.update(state.step)
        state.objective_ema.update(state.step)
        state.history.record(state.step, self.world.all_reduce_mean(torch.stack(losses).sum()), grad_norm, norms_P)
        state.step += 1
        return tokens


class LossModule(nn.Module):
    """The losses of examples, with network and objective as submodules, so that DDP and FSDP2 see all parameters."""

    def __init__(self, network: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.network, self.objective = network, objective

    def forward(
        self, tokens: Tensor, t: Tensor, u: Tensor, class_labels: Tensor | None, dropout_keys: Tensor | None
    ) -> Tensor:
        """Return `Objective.loss`, (B,); `dropout_keys` is (B, 2), or None without dropout."""
        denoiser = cast("Denoiser", self.network)
        if dropout_keys is not None:
            denoiser = DenoiserWithDropout(cast("Network", self.network), dropout_keys)
        return self.objective.loss(denoiser, tokens, t, u, class_labels)


def drop_labels(labels: Tensor, prob: float, no_class: int, rng: CounterRNG, step: int, rows: range) -> Tensor:
    """Replace class labels by `no_class` with probability `prob`, for classifier-free guidance.

    Dropped labels depend only on the random source, the step and the global row index.

    Shapes: labels and result (B,) int64.
    """
    u_B = rng.child("classes").uniform(step, torch.arange(rows.start, rows.stop), 1)[:, 0]
    return torch.where(u_B < prob, no_class, labels)
