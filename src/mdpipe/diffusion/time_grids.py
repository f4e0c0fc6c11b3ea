"""Time grids: the times 0 = t(0) < t(1) < ... < t(T) = 1 of discrete-time bounds and samplers, (T + 1,) float64."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn


def uniform_grid(steps: int) -> Tensor:
    """Return t(i) = i / T."""
    return torch.arange(steps + 1, dtype=torch.float64) / steps


def cosine_grid(steps: int) -> Tensor:
    """Return t(i) = cos(pi/2 (1 - i / T)) (eq. 6): small steps near time 1, where most tokens are masked.

    With the linear schedule it visits the alphas that the cosine schedule visits on the uniform grid. It is computed as
    sin(pi/2 i / T), the same number, which is exactly 0 at i = 0.
    """
    return torch.sin(math.pi / 2 * uniform_grid(steps))


TIME_GRIDS: dict[str, Callable[[int], Tensor]] = {"uniform": uniform_grid, "cosine": cosine_grid}
"""The grids of params.yaml, by name."""


class DiscreteTime(nn.Module):
    """The T steps from t(i) to s(i) = t(i - 1), i = 1 to T, of a discrete-time bound."""

    def __init__(self, timesteps: int, time_grid: str) -> None:
        super().__init__()
        self.timesteps = timesteps
        self.times: Tensor
        self.register_buffer("times", TIME_GRIDS[time_grid](timesteps), persistent=False)

    def interval(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return the ends s and t, each (B,), of step i = floor(t T) + 1: a uniform t gives a uniform step."""
        index = (t * self.timesteps).long().clamp(max=self.timesteps - 1)
        return self.times[index], self.times[index + 1]
