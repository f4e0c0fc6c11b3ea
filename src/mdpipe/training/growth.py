"""Which gradients grew before something broke: a loss that is not finite says nothing of where it began.

Letters: P parameters.
"""

import torch
from torch import Tensor

MEMORY = 0.99
"""Decay, a step, of what counts as usual: that of about the last hundred steps."""


class Growth:
    """The last norms of the gradients of P parameters beside their usual ones, as long as all was finite.

    Everything stays on the device, and nobody waits for it.
    """

    def __init__(self, parameters: int, device: torch.device) -> None:
        self._steps = torch.zeros((), dtype=torch.int64, device=device)
        self._broken = torch.zeros((), dtype=torch.bool, device=device)
        self._usual = torch.zeros(parameters, device=device)
        self._last = torch.zeros(parameters, device=device)

    def write(self, fine: Tensor, norms: Tensor) -> None:
        """Take note of a step: whether all in it was finite, () bool, and the norms (P,) of the gradients."""
        self._broken |= ~fine
        before = torch.where(self._steps > 1, torch.lerp(self._last, self._usual, MEMORY), self._last)
        self._usual = torch.where(self._broken, self._usual, before)
        self._last = torch.where(self._broken, self._last, norms)
        self._steps += ~self._broken

    def largest(self, count: int) -> list[tuple[int, float]]:
        """The parameters whose last finite gradient was the most times its usual norm, and how many times, if above 1.

        There is nothing to tell before two steps were finite; a gradient that was always 0 until then is left out.
        """
        if int(self._steps) < 2:
            return []
        times = torch.where(self._usual > 0, self._last / self._usual, 0)
        values, indices = times.topk(min(count, len(times)))
        return [(index, value) for index, value in zip(indices.tolist(), values.tolist(), strict=True) if value > 1]
