"""One training step (Alg. 1): times spread evenly over the batch, masks for each example, one update of the weights.

Letters: B examples of a micro-batch, L positions, K uniforms an example.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from mdpipe.diffusion.noise import Noise
from mdpipe.networks.dropout import Droppable
from mdpipe.training.draws import Draws, sent
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

    @cached_property
    def draws(self) -> Draws:
        """Of times and masks."""
        return Draws(self.noise, self.state.objective, self.settings.batch_size, self.state.device)

    def take(self, batches: Batches) -> int:
        """Take the state's next step; give the number of tokens in the batch of all processes."""
        state = self.state
        for optimizer in state.optimizers:
            optimizer.zero_grad(set_to_none=True)
        parts = self.world.rows(self.settings.batch_size, self.hardware.micro_batches)
        coming = [*((state.step, rows) for rows in parts[1:]), (state.step + 1, parts[0])]
        shares, tokens = [], 0
        for rows, following in zip(parts, coming, strict=True):
            batch = batches(state.step, rows)
            with micro_batch(self.loss, last=rows == parts[-1]):
                # Its share in the mean over this process's rows, which is then averaged over the processes.
                share = self._losses(batch, rows, following).mean() / len(parts)
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

    def _losses(self, batch: Batch, rows: range, following: tuple[int, range]) -> Tensor:
        """The losses (B,) of these rows in nats per token; `following` is the step and rows that come next."""
        device, length = self.state.device, batch.tokens.shape[1]
        tokens_BL = sent(batch.tokens, device)
        condition_B = None if batch.condition is None else sent(batch.condition, device)
        draw = self.draws.take(self.state.step, rows, length)
        self.draws.prepare(*following, length)
        counts = draw.known_counts()
        dropout = self._dropout(torch.arange(rows.start, rows.stop, device=device))
        with torch.autocast(device.type, torch.bfloat16, enabled=self.hardware.precision == "bfloat16"):
            losses_B: Tensor = self.loss(tokens_BL, draw.times, draw.uniforms, condition_B, counts, dropout)
        return losses_B / length

    def _dropout(self, examples: Tensor) -> Tensor | None:
        network = cast("Droppable", self.state.network)
        if not network.dropout_channels:
            return None
        # A purpose of its own: the masks' numbers would say which channels are dropped.
        noise = Noise(self.noise.seed, f"{self.noise.purpose}/dropout")
        return noise.uniform(self.state.step, examples, network.dropout_channels)
