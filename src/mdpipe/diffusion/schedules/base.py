"""What a masking schedule gives: alpha(t), the probability that a token is still visible, and what follows from it.

That is its derivative and inverse, the loss weight and the log signal-to-noise ratio.
Shapes: times are (...), float64 where accuracy counts, and every result has the shape and type of its times.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

EPSILON = 1e-4
"""Share of tokens masked at time 0 and visible at time 1 (App. J.1); it keeps the weight finite."""


@dataclass(frozen=True)
class Schedule(ABC):
    """alpha(t) = (1 - 2 epsilon) raw(t) + epsilon, with raw falling from 1 to 0, or from nearly 1 to nearly 0.

    The bound's two end terms take alpha(0) and alpha(1) as they are, so it stays a bound at any epsilon in [0, 1/2).
    At epsilon = 0 the weight may be infinite at time 0 and the log signal-to-noise ratio at both ends.

    Raises:
        ValueError: epsilon outside [0, 1/2).
    """

    epsilon: float = EPSILON

    def __post_init__(self) -> None:
        if not 0 <= self.epsilon < 0.5:
            raise ValueError(f"schedule: epsilon must lie in [0, 0.5), not {self.epsilon}")

    @abstractmethod
    def raw(self, time: Tensor) -> Tensor:
        """The share of visible tokens without epsilon."""

    @abstractmethod
    def raw_masked(self, time: Tensor) -> Tensor:
        """1 - raw(t), without the cancellation near time 0."""

    @abstractmethod
    def raw_derivative(self, time: Tensor) -> Tensor:
        """The derivative of `raw`."""

    @abstractmethod
    def raw_inverse(self, raw: Tensor) -> Tensor:
        """The time at which `raw` has this value in [0, 1]."""

    def alpha(self, time: Tensor) -> Tensor:
        """Probability that a token is still visible at `time`."""
        return (1 - 2 * self.epsilon) * self.raw(time) + self.epsilon

    def masked(self, time: Tensor) -> Tensor:
        """1 - alpha(t), the probability that a token is masked, to full relative accuracy."""
        return (1 - 2 * self.epsilon) * self.raw_masked(time) + self.epsilon

    def derivative(self, time: Tensor) -> Tensor:
        """alpha'(t), never positive."""
        return (1 - 2 * self.epsilon) * self.raw_derivative(time)

    def weight(self, time: Tensor) -> Tensor:
        """The weight -alpha'(t) / (1 - alpha(t)) of the masked tokens' cross entropy in eq. 5."""
        return -self.derivative(time) / self.masked(time)

    def log_snr(self, time: Tensor) -> Tensor:
        """log(alpha(t) / (1 - alpha(t))): the time that the bound is measured in, whatever the schedule."""
        return self.alpha(time).log() - self.masked(time).log()

    def inverse(self, alpha: Tensor) -> Tensor:
        """The time at which a share alpha of the tokens is visible; the nearest end where there is none."""
        raw = (alpha - self.epsilon) / (1 - 2 * self.epsilon)
        return self.raw_inverse(raw.clamp(0, 1)).clamp(0, 1)
