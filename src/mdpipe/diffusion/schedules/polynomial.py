"""The polynomial schedules: the mask probability is a power of the time."""

import math
from dataclasses import dataclass

from torch import Tensor

from mdpipe.diffusion.schedules.base import Schedule


@dataclass(frozen=True, kw_only=True)
class Polynomial(Schedule):
    """Polynomial schedule raw(t) = 1 - t^w (Table 4; w = 1 is the linear schedule).

    The weight is about w / t: few tokens are masked for most of the time.

    Raises:
        ValueError: if w is below 1, where the slope at time 0 would be infinite, or epsilon is out of range.
    """

    exponent: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.exponent < math.inf:
            raise ValueError(f"schedule.exponent must be at least 1, not {self.exponent}")

    def raw(self, t: Tensor) -> Tensor:
        """Return 1 - t^w."""
        return 1 - t**self.exponent

    def one_minus_raw(self, t: Tensor) -> Tensor:
        """Return t^w."""
        return t**self.exponent

    def raw_derivative(self, t: Tensor) -> Tensor:
        """Return -w t^(w - 1)."""
        return -self.exponent * t ** (self.exponent - 1)

    def raw_inverse(self, raw: Tensor) -> Tensor:
        """Return (1 - raw)^(1 / w)."""
        return (1 - raw) ** (1 / self.exponent)
