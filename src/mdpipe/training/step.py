"""One training step (Alg. 1): times spread evenly over the batch, masks for each example, one update of the weights.

Letters: B examples of a micro-batch, L positions, K uniforms an example.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from mdpipe.diffusion.noise import Noise, stratified_times
from mdpipe.networks.dropout import SupportsDropout
from mdpipe.training.optimizer import clip_gradient, gradient_norms, learning_rate_at, set_learning_rate
from mdpipe.training.parallel import mean_over, micro_batch
from mdpipe.training.state import TrainingState
from mdpipe.training.world import World

if TYPE_CHECKING:
    from mdpipe.params import HardwareSettings, TrainSettings


@dataclass(frozen=True)
class Batch:
    """What a step learns from."""

    tokens: Tensor
    """(B, L) int64."""
    condition: Tensor | None = None
    """(B,) int64, the classes that the network is told, or None where it is told none."""


Batches = Callable[[int, range], Batch]
"""The rows with these indices in the batch of step k = 0, 1, ...; the same whenever they are asked for."""


@dataclass(frozen=True)
class Step:
    """What a step needs; `loss` is `parallel.Loss`, perhaps wrapped, of the state's network and objective."""

    state: TrainingState
    loss: nn.Module
    settings: "TrainSettings"
    hardware: "HardwareSettings"
    noise: Noise
    world: World

    def take(self, batches: Batches) -> int:
        """Take the state's next step; give the number of tokens in the batch of all processes."""
        state = self.state
        for optimizer in state.optimizers:
            optimizer.zero_grad(set_to_none=True)
        parts = self.world.rows(self.settings.batch_size, self.hardware.micro_batches)
        shares, tokens = [], 0
        for rows in parts:
            batch = batches(state.step, rows)
            with micro_batch(self.loss, last=rows == parts[-1]):
                # Its share in the mean over this process's rows, which is then averaged over the processes.
                share = self._losses(batch, rows).mean() / len(parts)
                share.backward()  # type: ignore[no-untyped-call]
            shares.append(share.detach())
            tokens += self.world.size * batch.tokens.numel()
        norms = gradient_norms(state.parameters)
        gradient_norm = norms[: state.network_parameters].norm()
        clip_gradient(state.network.parameters(), gradient_norm, self.settings.gradient_clip)
        set_learning_rate(state.optimizers, learning_rate_at(state.step, self.settings))
        for optimizer in state.optimizers:
            optimizer.step()
        state.update_averages()
        state.record.write(state.step, mean_over(self.world, torch.stack(shares).sum()), gradient_norm, norms)
        state.step += 1
        return tokens

    def _losses(self, batch: Batch, rows: range) -> Tensor:
        """The losses (B,) of these rows in nats per token."""
        state, length = self.state, batch.tokens.shape[1]
        device = state.device
        tokens_BL = _sent(batch.tokens, device)
        condition_B = None if batch.condition is None else _sent(batch.condition, device)
        examples_B = torch.arange(rows.start, rows.stop, device=device)
        times_B = stratified_times(self.noise, state.step, examples_B, self.settings.batch_size)
        uniforms_BK = self.noise.uniform(state.step, examples_B, state.objective.loss_uniforms(length))
        dropout_keys = self._dropout_keys(examples_B)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.hardware.precision == "bfloat16"):
            losses_B: Tensor = self.loss(tokens_BL, times_B, uniforms_BK, condition_B, dropout_keys)
        return losses_B / length

    def _dropout_keys(self, examples: Tensor) -> Tensor | None:
        """Return a key for each example, (B, 2), of a purpose that shares no number with times and masks."""
        if cast("SupportsDropout", self.state.network).dropout == 0:
            return None
        return Noise(self.noise.seed, f"{self.noise.purpose}/dropout").keys(self.state.step, examples)


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on the device, without waiting for what that still has to do."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
