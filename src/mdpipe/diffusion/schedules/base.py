"""Masking schedules: alpha(t), the probability that a token is still unmasked at time t in [0, 1], and its functions.

Shapes: times (...), float64 where accuracy matters; every result has the shape and type of its times.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

EPSILON = 1e-4
"""Fraction of tokens masked at time 0 and unmasked at time 1 (App. J.1); it keeps the weight finite."""


@dataclass(frozen=True)
class Schedule(ABC):
    """alpha(t) = (1 - 2 epsilon) raw(t) + epsilon, where raw falls from 1 to 0, or from nearly 1 to nearly 0.

    The bound's boundary terms take alpha(0) and alpha(1) as they are, so it is a bound for all epsilon in [0, 1/2).
    With epsilon = 0 the weight may be infinite at time 0, and the log signal-to-noise ratio at both ends.

    Raises:
        ValueError: if epsilon is outside [0, 1/2).
    """

    epsilon: float = EPSILON

    def __post_init__(self) -> None:
        if not 0 <= self.epsilon < 0.5:
            raise ValueError(f"schedule: epsilon must lie in [0, 0.5), not {self.epsilon}")

    @abstractmethod
    def raw(self, t: Tensor) -> Tensor:
        """Return alpha(t) without epsilon."""

    @abstractmethod
    def one_minus_raw(self, t: Tensor) -> Tensor:
        """Return 1 - raw(t), without cancellation near time 0."""

    @abstractmethod
    def raw_derivative(self, t: Tensor) -> Tensor:
        """Return raw'(t)."""

    @abstractmethod
    def raw_inverse(self, raw: Tensor) -> Tensor:
        """Return the time at which `raw` has this value in [0, 1]."""

    def alpha(self, t: Tensor) -> Tensor:
        """Return the probability that a token is still unmasked."""
        return (1 - 2 * self.epsilon) * self.raw(t) + self.epsilon

    def one_minus_alpha(self, t: Tensor) -> Tensor:
        """Return the probability that a token is masked, to full relative accuracy."""
        return (1 - 2 * self.epsilon) * self.one_minus_raw(t) + self.epsilon

    def alpha_derivative(self, t: Tensor) -> Tensor:
        """Return alpha'(t), which is never positive."""
        return (1 - 2 * self.epsilon) * self.raw_derivative(t)

    def weight(self, t: Tensor) -> Tensor:
        """Return the weight -alpha'(t) / (1 - alpha(t)) of the masked tokens' cross entropy (eq. 5)."""
        return -self.alpha_derivative(t) / self.one_minus_alpha(t)

    def log_snr(self, t: Tensor) -> Tensor:
        """Return log(alpha(t) / (1 - alpha(t))), in which the bound is the same for all schedules."""
        return self.alpha(t).log() - self.one_minus_alpha(t).log()

    def inverse(self, alpha: Tensor) -> Tensor:
        """Return the time at which a token is unmasked with probability alpha; the nearest end if there is none."""
        raw = (alpha - self.epsilon) / (1 - 2 * self.epsilon)
        return self.raw_inverse(raw.clamp(0, 1)).clamp(0, 1)
