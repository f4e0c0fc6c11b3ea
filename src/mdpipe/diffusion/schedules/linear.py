"""The linear schedule: the masked share is the time."""

import torch
from torch import Tensor

from mdpipe.diffusion.schedules.base import Schedule


class Linear(Schedule):
    """raw(t) = 1 - t (Table 4): the masked share is the time, and the weight is about 1 / t."""

    def raw(self, time: Tensor) -> Tensor:
        """1 - t."""
        return 1 - time

    def raw_masked(self, time: Tensor) -> Tensor:
        """T."""
        return time

    def raw_derivative(self, time: Tensor) -> Tensor:
        """-1."""
        return -torch.ones_like(time)

    def raw_inverse(self, raw: Tensor) -> Tensor:
        """1 - raw."""
        return 1 - raw
