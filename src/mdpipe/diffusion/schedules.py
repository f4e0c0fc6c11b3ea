"""Masking schedules: how fast tokens turn into the mask as time runs from 0 (data) to 1 (all masked).

Every schedule gives alpha(t), the probability that a token is still visible, its derivative, and the loss weight.
Shapes: times are (...), float64 where accuracy counts, and every result has the shape and type of its times.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

EPSILON = 1e-4
"""Share of tokens masked at time 0 and visible at time 1 (App. J.1); it keeps the weight finite."""


@dataclass(frozen=True)
class Schedule(ABC):
    """alpha(t) = (1 - 2 epsilon) raw(t) + epsilon, with raw falling from 1 to 0.

    The bound's two end terms account for epsilon exactly, so it stays a bound at any value in [0, 1/2).

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
    def raw_derivative(self, time: Tensor) -> Tensor:
        """The derivative of `raw`."""

    def alpha(self, time: Tensor) -> Tensor:
        """Probability that a token is still visible at `time`."""
        return (1 - 2 * self.epsilon) * self.raw(time) + self.epsilon

    def derivative(self, time: Tensor) -> Tensor:
        """alpha'(t), never positive."""
        return (1 - 2 * self.epsilon) * self.raw_derivative(time)

    def weight(self, time: Tensor) -> Tensor:
        """The weight -alpha'(t) / (1 - alpha(t)) of the masked tokens' cross entropy in eq. 5."""
        return -self.derivative(time) / (1 - self.alpha(time))


class Linear(Schedule):
    """raw(t) = 1 - t (Table 4): the masked share is the time, and the weight is about 1 / t."""

    def raw(self, time: Tensor) -> Tensor:
        """1 - t."""
        return 1 - time

    def raw_derivative(self, time: Tensor) -> Tensor:
        """-1."""
        return -torch.ones_like(time)


class Cosine(Schedule):
    """raw(t) = 1 - cos(pi/2 (1 - t)) (Table 4): few tokens remain visible for most of the time.

    The weight is about pi/2 tan(pi/2 (1 - t)), zero at time 1.
    """

    def raw(self, time: Tensor) -> Tensor:
        """1 - cos(pi/2 (1 - t))."""
        return 1 - torch.cos(math.pi / 2 * (1 - time))

    def raw_derivative(self, time: Tensor) -> Tensor:
        """-pi/2 sin(pi/2 (1 - t))."""
        return -math.pi / 2 * torch.sin(math.pi / 2 * (1 - time))


SCHEDULES: dict[str, type[Schedule]] = {"linear": Linear, "cosine": Cosine}


def build_schedule(kind: str) -> Schedule:
    """The schedule that params.yaml calls `kind`.

    Raises:
        ValueError: there is no such kind.
    """
    if kind not in SCHEDULES:
        raise ValueError(f"schedule.kind is {kind!r}; it must be one of {', '.join(sorted(SCHEDULES))}")
    return SCHEDULES[kind]()
