"""The history of a run: loss, gradient norm and learning rate along the way, the same for every machine speed."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mdpipe.training.arrival import Arrivals
from mdpipe.training.growth import Growth
from mdpipe.training.optimizer import learning_rate_at

if TYPE_CHECKING:
    from mdpipe.params import TrainSettings

ROWS = 200
"""A history has this many rows, up to twice as many, or one a step in short runs: enough for a curve."""


NEVER = 2**62
"""A step that is never reached."""

NAMED = 3
"""Parameters that an error names, of perhaps hundreds."""


class NonFiniteLossError(ValueError):
    """The loss or the gradient of a step was infinite or not a number."""


@dataclass(frozen=True)
class HistoryRow:
    """What happened up to step number `step` (counted from 1) since the row before.

    `loss` (bits per unit) and `gradient_norm` (before clipping) are means over these steps; `learning_rate` is that of
    the last of them.
    """

    step: int
    loss: float
    learning_rate: float
    gradient_norm: float


class Record:
    """Loss (nats per unit) and gradient norm of every step, kept where they were computed.

    Writing them makes nobody wait for the device; reading does, which is why it is done now and then only.

    Args:
        settings: of the run.
        device: where losses are computed.
        parameters: all P of them by name, before they have a gradient.
    """

    def __init__(self, settings: "TrainSettings", device: torch.device, parameters: Mapping[str, nn.Parameter]) -> None:
        self._settings = settings
        self._names = list(parameters)
        self._arrivals = Arrivals(list(parameters.values()))
        self._growth = Growth(len(parameters), device)
        self._first_bad = torch.full((len(parameters),), NEVER, device=device)
        self._losses = torch.zeros(settings.steps, device=device)
        self._gradient_norms = torch.zeros(settings.steps, device=device)
        self._checked = 0

    def write(self, step: int, loss: Tensor, gradient_norm: Tensor, parameter_norms: Tensor) -> None:
        """Take note of step k: its loss (), the norm of its gradient (), and of each parameter's (P,)."""
        self._arrivals.end()
        self._losses[step] = loss.detach()
        self._gradient_norms[step] = gradient_norm
        self._first_bad.clamp_(max=torch.where(parameter_norms.isfinite(), NEVER, step))
        self._growth.write(loss.detach().isfinite() & parameter_norms.isfinite().all(), parameter_norms)

    def check(self, steps: int) -> None:
        """Look at the steps made since the last check.

        Raises:
            NonFiniteLossError: one of them had an infinite or undefined loss or gradient.
        """
        fine = self._losses[:steps].isfinite() & self._gradient_norms[:steps].isfinite()
        bad = (~fine[self._checked :]).nonzero()
        if len(bad):
            step = self._checked + int(bad[0])
            raise NonFiniteLossError(
                f"step {step + 1} of {self._settings.steps}: the loss is {self._losses[step].item()} and the norm of"
                f" the gradient {self._gradient_norms[step].item()}, at the learning rate"
                f" {learning_rate_at(step, self._settings):.3g}. {self._where_it_began()}"
                "The last good checkpoint is kept."
                " Lower train.learning_rate, lengthen train.warmup_steps or set train.gradient_clip."
            )
        self._checked = steps

    def _where_it_began(self) -> str:
        """Where numbers were the first that are not finite, as far as loss and gradients tell."""
        first = int(self._first_bad.min()) if len(self._names) else NEVER
        if first == NEVER:
            return ""
        bad = self._arrivals.ordered((self._first_bad == first).nonzero().flatten().tolist())
        if not self._losses[first].isfinite():
            return (
                f"It began on the way to the loss, in step {first + 1}: the gradients of {len(bad)} of"
                f" {len(self._names)} parameters only followed. {self._what_grew()}"
            )
        others = f" and {len(bad) - NAMED} others" if len(bad) > NAMED else ""
        names = ", ".join(self._names[index] for index in bad[:NAMED])
        return (
            f"It began on the way back from the loss, which is finite, in step {first + 1}: the gradient is not finite,"
            f" the nearest to the loss first, of {names}{others}. "
        )

    def _what_grew(self) -> str:
        """Which gradients were far above their usual norm in the last step that was finite."""
        grown = [f"{self._names[index]} ({times:.3g} times)" for index, times in self._growth.largest(NAMED)]
        return f"Before it, gradients were the furthest above their usual norm in {', '.join(grown)}. " if grown else ""

    def loss(self, first: int, end: int) -> float:
        """Mean loss of the steps first, ..., end - 1 in bits per unit."""
        return _mean(self._losses[first:end]) / math.log(2)

    def largest_loss(self, first: int, end: int) -> float:
        """The largest loss of these steps: far above the mean where it spikes."""
        return float(self._losses[first:end].max()) / math.log(2)

    def gradient_norm(self, first: int, end: int) -> float:
        """Mean norm of the gradient in these steps, before clipping."""
        return _mean(self._gradient_norms[first:end])

    def rows(self) -> list[HistoryRow]:
        """The history of the whole run."""
        steps = self._settings.steps
        every = max(1, steps // ROWS)
        ends = [*range(every, steps, every), steps]
        return [
            HistoryRow(
                step=end,
                loss=self.loss(first, end),
                learning_rate=learning_rate_at(end - 1, self._settings),
                gradient_norm=self.gradient_norm(first, end),
            )
            for first, end in zip([0, *ends], ends, strict=False)
        ]

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return {"losses": self._losses, "gradient_norms": self._gradient_norms}

    def load(self, tensors: Mapping[str, Tensor], steps: int) -> None:
        """Go on from what `tensors` gave after so many steps."""
        self._losses.copy_(tensors["losses"])
        self._gradient_norms.copy_(tensors["gradient_norms"])
        self._checked = steps


def _mean(values: Tensor) -> float:
    return float(values.double().mean())
