"""The linear schedule: the mask probability is the time."""

import torch
from torch import Tensor

from mdpipe.diffusion.schedules.base import Schedule


class Linear(Schedule):
    """Linear schedule raw(t) = 1 - t (Table 4): the mask probability is the time, and the weight is about 1 / t."""

    def raw(self, t: Tensor) -> Tensor:
        """Return 1 - t."""
        return 1 - t

    def one_minus_raw(self, t: Tensor) -> Tensor:
        """Return t."""
        return t

    def raw_derivative(self, t: Tensor) -> Tensor:
        """Return -1."""
        return -torch.ones_like(t)

    def raw_inverse(self, raw: Tensor) -> Tensor:
        """Return 1 - raw."""
        return 1 - raw
