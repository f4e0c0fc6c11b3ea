"""The noise of training's batches, drawn one part of a batch ahead on a GPU, so that nothing has to wait for it.

The head runs on masked positions alone, so the host must know how many there are before it can launch it. Asked when
they are needed, a GPU would first finish all work that it was given before. Asked a part ahead, it has long answered.

Letters: B examples of a part, K uniforms an example.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mdpipe.diffusion.noise import Noise, stratified_times
from mdpipe.diffusion.objectives.base import Objective


@dataclass(frozen=True)
class Draw:
    """What chance there is in the losses of a part of a batch."""

    times: Tensor
    """(B,) float64."""
    uniforms: Tensor
    """(B, K) float64."""
    counts: Tensor | None
    """On its way to the host, what `Objective.mask_counts` gives; None where nobody has to wait for it."""
    counted: torch.cuda.Event | None
    """When it will have arrived."""

    def known_counts(self) -> list[int] | None:
        """The numbers of masks of the objective's draws, as soon as they are there."""
        if self.counts is None or self.counted is None:
            return None
        self.counted.synchronize()
        known: list[int] = self.counts.tolist()
        return known


class Draws:
    """Times, spread evenly over a batch of all processes, and uniforms; both are keyed by the example's index in it."""

    def __init__(self, noise: Noise, objective: Objective, batch_size: int, device: torch.device) -> None:
        self._noise = noise
        self._objective = objective
        self._batch_size = batch_size
        self._device = device
        self._ahead: dict[tuple[int, range], Draw] = {}

    def take(self, step: int, rows: range, length: int) -> Draw:
        """The draw of these rows, of so many tokens, in step k."""
        return self._ahead.pop((step, rows), None) or self._draw(step, rows, length)

    def prepare(self, step: int, rows: range, length: int) -> None:
        """Begin with a draw that will be taken next; on a CPU there is nothing to be gained."""
        if self._device.type == "cuda":
            self._ahead[step, rows] = self._draw(step, rows, length)

    def _draw(self, step: int, rows: range, length: int) -> Draw:
        examples_B = torch.arange(rows.start, rows.stop, device=self._device)
        times_B = stratified_times(self._noise, step, examples_B, self._batch_size)
        uniforms_BK = self._noise.uniform(step, examples_B, self._objective.loss_uniforms(length))
        counts = self._objective.mask_counts(times_B, uniforms_BK) if self._device.type == "cuda" else None
        if counts is None:
            return Draw(times_B, uniforms_BK, None, None)
        counted = torch.cuda.Event()  # type: ignore[no-untyped-call]
        here = torch.empty(counts.shape, dtype=counts.dtype, pin_memory=True).copy_(counts, non_blocking=True)
        counted.record()
        return Draw(times_B, uniforms_BK, here, counted)


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on the device, without waiting for what that still has to do."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
