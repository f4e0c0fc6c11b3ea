"""The history of a run: loss, gradient norm and learning rate along the way, the same for every machine speed."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mdpipe.training.optimizer import learning_rate_at

if TYPE_CHECKING:
    from mdpipe.params import TrainSettings

ROWS = 200
"""A history has this many rows, up to twice as many, or one a step in short runs: enough for a curve."""


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
    """

    def __init__(self, settings: "TrainSettings", device: torch.device) -> None:
        self._settings = settings
        self._losses = torch.zeros(settings.steps, device=device)
        self._gradient_norms = torch.zeros(settings.steps, device=device)
        self._checked = 0

    def write(self, step: int, loss: Tensor, gradient_norm: Tensor) -> None:
        """Take note of step k."""
        self._losses[step] = loss.detach()
        self._gradient_norms[step] = gradient_norm

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
                f" {learning_rate_at(step, self._settings):.3g}. Lower train.learning_rate, lengthen"
                " train.warmup_steps or set train.gradient_clip."
            )
        self._checked = steps

    def loss(self, first: int, end: int) -> float:
        """Mean loss of the steps first, ..., end - 1 in bits per unit."""
        return _mean(self._losses[first:end]) / math.log(2)

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
                gradient_norm=_mean(self._gradient_norms[first:end]),
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
