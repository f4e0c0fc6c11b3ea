"""The geometric schedule: the noise b(t) grows by a constant factor."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mdpipe.diffusion.schedules.base import Schedule


@dataclass(frozen=True, kw_only=True)
class Geometric(Schedule):
    """Geometric schedule raw(t) = exp(-b(t)), b(t) = beta_min^(1 - t) beta_max^t (Table 4).

    Its derivative is -raw(t) b(t) log(beta_max / beta_min); the paper's row has one sign too many. raw runs from
    exp(-beta_min) to exp(-beta_max) and is not stretched to reach 1 and 0: the boundary terms account for the rest.

    Raises:
        ValueError: unless 0 < beta_min < beta_max < infinity, or if epsilon is out of range.
    """

    beta_min: float = 1e-5
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.beta_min < self.beta_max < math.inf:
            raise ValueError(
                "schedule.beta_min and schedule.beta_max must be positive and rising,"
                f" not {self.beta_min} and {self.beta_max}"
            )

    def raw(self, t: Tensor) -> Tensor:
        """Return exp(-b(t))."""
        return torch.exp(-self._b(t))

    def one_minus_raw(self, t: Tensor) -> Tensor:
        """Return 1 - exp(-b(t))."""
        return -torch.expm1(-self._b(t))

    def raw_derivative(self, t: Tensor) -> Tensor:
        """Return -exp(-b(t)) b(t) log(beta_max / beta_min)."""
        return -self.raw(t) * self._b(t) * self._log_ratio

    def raw_inverse(self, raw: Tensor) -> Tensor:
        """Return log(-log(raw) / beta_min) / log(beta_max / beta_min)."""
        return (-raw.log() / self.beta_min).log() / self._log_ratio

    @property
    def _log_ratio(self) -> float:
        return math.log(self.beta_max / self.beta_min)

    def _b(self, t: Tensor) -> Tensor:
        return self.beta_min * torch.exp(self._log_ratio * t)
