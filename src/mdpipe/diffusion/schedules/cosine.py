"""The cosine schedule: most tokens are masked early."""

import math

import torch
from torch import Tensor

from mdpipe.diffusion.schedules.base import Schedule


class Cosine(Schedule):
    """raw(t) = 1 - cos(pi/2 (1 - t)) (Table 4): few tokens remain visible for most of the time.

    The weight is about pi/2 tan(pi/2 (1 - t)), zero at time 1. Half angles keep raw accurate where it is small.
    """

    def raw(self, time: Tensor) -> Tensor:
        """1 - cos(pi/2 (1 - t)) = 2 sin^2(pi/4 (1 - t))."""
        return 2 * torch.sin(math.pi / 4 * (1 - time)) ** 2

    def raw_masked(self, time: Tensor) -> Tensor:
        """cos(pi/2 (1 - t)) = sin(pi/2 t)."""
        return torch.sin(math.pi / 2 * time)

    def raw_derivative(self, time: Tensor) -> Tensor:
        """-pi/2 sin(pi/2 (1 - t))."""
        return -math.pi / 2 * torch.sin(math.pi / 2 * (1 - time))

    def raw_inverse(self, raw: Tensor) -> Tensor:
        """1 - 4/pi arcsin(sqrt(raw / 2))."""
        return 1 - 4 / math.pi * torch.asin((raw / 2).sqrt())
