"""Masking schedules: how fast tokens turn into the mask as time runs from 0 (data) to 1 (all masked).

Every schedule gives alpha(t), the probability that a token is still visible, its derivative and inverse, the loss
weight and the log signal-to-noise ratio.
Shapes: times are (...), float64 where accuracy counts, and every result has the shape and type of its times.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
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


@dataclass(frozen=True, kw_only=True)
class Geometric(Schedule):
    """raw(t) = exp(-b(t)) with b(t) = beta_min^(1 - t) beta_max^t (Table 4): noise grows by a constant factor.

    Its derivative is -raw(t) b(t) log(beta_max / beta_min); the paper's row has one sign too many. raw runs from
    exp(-beta_min) to exp(-beta_max) and is not stretched to reach 1 and 0: the end terms pay for the rest.

    Raises:
        ValueError: not 0 < beta_min < beta_max < infinity; or epsilon as above.
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

    def raw(self, time: Tensor) -> Tensor:
        """exp(-b(t))."""
        return torch.exp(-self._noise(time))

    def raw_masked(self, time: Tensor) -> Tensor:
        """1 - exp(-b(t))."""
        return -torch.expm1(-self._noise(time))

    def raw_derivative(self, time: Tensor) -> Tensor:
        """-exp(-b(t)) b(t) log(beta_max / beta_min)."""
        return -self.raw(time) * self._noise(time) * self._growth

    def raw_inverse(self, raw: Tensor) -> Tensor:
        """log(-log(raw) / beta_min) / log(beta_max / beta_min)."""
        return (-raw.log() / self.beta_min).log() / self._growth

    @property
    def _growth(self) -> float:
        return math.log(self.beta_max / self.beta_min)

    def _noise(self, time: Tensor) -> Tensor:
        return self.beta_min * torch.exp(self._growth * time)


class Cosine(Schedule):
    """raw(t) = 1 - cos(pi/2 (1 - t)) (Table 4): few tokens remain visible for most of the time.

    The weight is about pi/2 tan(pi/2 (1 - t)), zero at time 1. Half angles keep raw accurate where it is small.
    """

    def raw(self, time: Tensor) -> Tensor:
        """1 - cos(pi/2 (1 - t)) = 2 sin^2(pi/4 (1 - t))."""
        return 2 * torch.sin(math.pi / 4 * (1 - time)) ** 2

    def raw_masked(self, time: Tensor) -> Tensor:
        """cos(pi/2 (1 - t)) = sin(pi/2 t)."""
        return torch.sin(math.pi / 2 * time)

    def raw_derivative(self, time: Tensor) -> Tensor:
        """-pi/2 sin(pi/2 (1 - t))."""
        return -math.pi / 2 * torch.sin(math.pi / 2 * (1 - time))

    def raw_inverse(self, raw: Tensor) -> Tensor:
        """1 - 4/pi arcsin(sqrt(raw / 2))."""
        return 1 - 4 / math.pi * torch.asin((raw / 2).sqrt())


SCHEDULES: dict[str, type[Schedule]] = {
    "linear": Linear,
    "polynomial": Polynomial,
    "geometric": Geometric,
    "cosine": Cosine,
}


def build_schedule(kind: str, **settings: Any) -> Schedule:
    """The schedule that params.yaml calls `kind`, with its other keys as settings.

    Raises:
        ValueError: there is no such kind, or a setting is out of range.
    """
    if kind not in SCHEDULES:
        raise ValueError(f"schedule.kind is {kind!r}; it must be one of {', '.join(sorted(SCHEDULES))}")
    return SCHEDULES[kind](**settings)
