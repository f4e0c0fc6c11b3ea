"""The polynomial schedules: the masked share is a power of the time."""

import math
from dataclasses import dataclass

from torch import Tensor

from mdpipe.diffusion.schedules.base import Schedule


@dataclass(frozen=True, kw_only=True)
class Polynomial(Schedule):
    """raw(t) = 1 - t^w (Table 4; w = 1 is the linear schedule): few tokens are masked for most of the time.

    The weight is about w / t.

    Raises:
        ValueError: the exponent w is below 1, where the slope at time 0 would be infinite; or epsilon as above.
    """

    exponent: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.exponent < math.inf:
            raise ValueError(f"schedule.exponent must be at least 1, not {self.exponent}")

    def raw(self, time: Tensor) -> Tensor:
        """1 - t^w."""
        return 1 - time**self.exponent

    def raw_masked(self, time: Tensor) -> Tensor:
        """t^w."""
        return time**self.exponent

    def raw_derivative(self, time: Tensor) -> Tensor:
        """-w t^(w - 1)."""
        return -self.exponent * time ** (self.exponent - 1)

    def raw_inverse(self, raw: Tensor) -> Tensor:
        """(1 - raw)^(1 / w)."""
        return (1 - raw) ** (1 / self.exponent)
