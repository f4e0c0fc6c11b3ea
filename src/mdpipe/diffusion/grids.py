"""Grids: the times at which a sampler stops on its way from 1 (all masked) to 0.

A grid is (steps + 1,) float64, increasing from exactly 0 to exactly 1.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor


def uniform_grid(steps: int) -> Tensor:
    """t(i) = i / T."""
    return torch.arange(_positive(steps) + 1, dtype=torch.float64) / steps


def cosine_grid(steps: int) -> Tensor:
    """t(i) = cos(pi/2 (1 - i / T)) (eq. 6): small steps near time 1, where most is masked.

    Under the linear schedule it visits the alphas that the cosine schedule visits on the uniform grid.
    Written as sin(pi/2 i / T), the same number, which is exactly 0 at i = 0.
    """
    return torch.sin(math.pi / 2 * uniform_grid(steps))


GRIDS: dict[str, Callable[[int], Tensor]] = {"uniform": uniform_grid, "cosine": cosine_grid}


def build_grid(kind: str, steps: int) -> Tensor:
    """The grid that params.yaml calls `kind`.

    Raises:
        ValueError: there is no such kind, or no step.
    """
    if kind not in GRIDS:
        raise ValueError(f"sample.sampler.grid is {kind!r}; it must be one of {', '.join(sorted(GRIDS))}")
    return GRIDS[kind](steps)


def _positive(steps: int) -> int:
    if steps < 1:
        raise ValueError(f"sample.sampler.steps must be at least 1, not {steps}")
    return steps
