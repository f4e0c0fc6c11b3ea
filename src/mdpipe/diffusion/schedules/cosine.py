"""The cosine schedule: most tokens are masked early."""

import math

import torch
from torch import Tensor

from mdpipe.diffusion.schedules.base import Schedule


class Cosine(Schedule):
    """Cosine schedule raw(t) = 1 - cos(pi/2 (1 - t)) (Table 4): few tokens are unmasked for most of the time.

    The weight is about pi/2 tan(pi/2 (1 - t)), zero at time 1. Half angles keep raw accurate where it is small.
    """

    def raw(self, t: Tensor) -> Tensor:
        """Return 1 - cos(pi/2 (1 - t)) = 2 sin^2(pi/4 (1 - t))."""
        return 2 * torch.sin(math.pi / 4 * (1 - t)) ** 2

    def one_minus_raw(self, t: Tensor) -> Tensor:
        """Return cos(pi/2 (1 - t)) = sin(pi/2 t)."""
        return torch.sin(math.pi / 2 * t)

    def raw_derivative(self, t: Tensor) -> Tensor:
        """Return -pi/2 sin(pi/2 (1 - t))."""
        return -math.pi / 2 * torch.sin(math.pi / 2 * (1 - t))

    def raw_inverse(self, raw: Tensor) -> Tensor:
        """Return 1 - 4/pi arcsin(sqrt(raw / 2))."""
        return 1 - 4 / math.pi * torch.asin((raw / 2).sqrt())
