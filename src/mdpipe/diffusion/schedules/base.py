"""Masking schedules alpha(t), time grids of discrete-time bounds and samplers, and distributions of the training time.

alpha(t) is the probability that a token is still unmasked at time t in [0, 1]. Training times are sampled through the
inverse of their distribution. It is monotone, so times that are evenly spread over a batch fall into strata of equal
probability.

Shapes: times and probabilities (...), float64 where accuracy matters; every result has the shape and type of its times.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from mdpipe.params.diffusion import (
    CosineConfig,
    GeometricConfig,
    LinearConfig,
    LogitNormalConfig,
    PolynomialConfig,
    ScheduleConfig,
    TimeDistributionConfig,
    UniformTimesConfig,
)
from mdpipe.params.registry import Configurable


class Schedule(Configurable, ABC):
    """alpha(t) = (1 - 2 epsilon) raw(t) + epsilon, where raw falls from 1 to 0, or from nearly 1 to nearly 0.

    The bound's boundary terms take alpha(0) and alpha(1) as they are, so it is a bound for all epsilon in [0, 1/2).
    With epsilon = 0 the weight may be infinite at time 0, and the log signal-to-noise ratio at both ends.

    Args:
        config: Its settings; by default those of its kind.
    """

    config_class: ClassVar[type[ScheduleConfig]]

    def __init__(self, config: ScheduleConfig | None = None) -> None:
        self.config = type(self).config_class.model_validate({}) if config is None else config
        self.epsilon = self.config.epsilon

    @abstractmethod
    def raw(self, t: Tensor) -> Tensor:
        """Return alpha(t) without epsilon."""

    @abstractmethod
    def one_minus_raw(self, t: Tensor) -> Tensor:
        """Return 1 - raw(t), without cancellation near time 0."""

    @abstractmethod
    def raw_derivative(self, t: Tensor) -> Tensor:
        """Return raw'(t), which is never positive."""

    @abstractmethod
    def raw_inverse(self, raw: Tensor) -> Tensor:
        """Return the time at which `raw` has this value in [0, 1]."""

    def alpha(self, t: Tensor) -> Tensor:
        """Return the probability that a token is still unmasked."""
        return (1 - 2 * self.epsilon) * self.raw(t) + self.epsilon

    def one_minus_alpha(self, t: Tensor) -> Tensor:
        """Return the probability that a token is masked, to full relative accuracy."""
        return (1 - 2 * self.epsilon) * self.one_minus_raw(t) + self.epsilon

    def weight(self, t: Tensor) -> Tensor:
        """Return the weight -alpha'(t) / (1 - alpha(t)) of the masked tokens' cross entropy (eq. 5)."""
        alpha_derivative = (1 - 2 * self.epsilon) * self.raw_derivative(t)
        return -alpha_derivative / self.one_minus_alpha(t)

    def inverse(self, alpha: Tensor) -> Tensor:
        """Return the time at which a token is unmasked with probability alpha; the nearest end if there is none."""
        raw = (alpha - self.epsilon) / (1 - 2 * self.epsilon)
        return self.raw_inverse(raw.clamp(0, 1)).clamp(0, 1)


class Linear(Schedule, config=LinearConfig):
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


class Polynomial(Schedule, config=PolynomialConfig):
    """Polynomial schedule raw(t) = 1 - t^w (Table 4; w = 1 is the linear schedule).

    The weight is about w / t: few tokens are masked for most of the time.
    """

    config: PolynomialConfig

    def raw(self, t: Tensor) -> Tensor:
        """Return 1 - t^w."""
        return 1 - t**self.config.exponent

    def one_minus_raw(self, t: Tensor) -> Tensor:
        """Return t^w."""
        return t**self.config.exponent

    def raw_derivative(self, t: Tensor) -> Tensor:
        """Return -w t^(w - 1)."""
        return -self.config.exponent * t ** (self.config.exponent - 1)

    def weight(self, t: Tensor) -> Tensor:
        """Return the weight; without epsilon it is w / t, where the quotient may be 0 / 0 since t^w underflows."""
        return super().weight(t) if self.epsilon else self.config.exponent / t

    def raw_inverse(self, raw: Tensor) -> Tensor:
        """Return (1 - raw)^(1 / w)."""
        return (1 - raw) ** (1 / self.config.exponent)


class Geometric(Schedule, config=GeometricConfig):
    """Geometric schedule raw(t) = exp(-b(t)), b(t) = beta_min^(1 - t) beta_max^t (Table 4).

    Its derivative is -raw(t) b(t) log(beta_max / beta_min); the paper's row has one sign too many. raw runs from
    exp(-beta_min) to exp(-beta_max) and is not stretched to reach 1 and 0: the boundary terms account for the rest.
    """

    config: GeometricConfig

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
        return (-raw.log() / self.config.beta_min).log() / self._log_ratio

    @property
    def _log_ratio(self) -> float:
        return math.log(self.config.beta_max / self.config.beta_min)

    def _b(self, t: Tensor) -> Tensor:
        return self.config.beta_min * torch.exp(self._log_ratio * t)


class Cosine(Schedule, config=CosineConfig):
    """Cosine schedule raw(t) = 1 - cos(pi/2 (1 - t)) (Table 4): few tokens are unmasked for most of the time.

    The weight is about pi/2 tan(pi/2 (1 - t)), zero at time 1. Half angles keep raw accurate where it is small.
    """

    def raw(self, t: Tensor) -> Tensor:
        """Return 1 - cos(pi/2 (1 - t)) = 2 sin^2(pi/4 (1 - t))."""
        return 2 * torch.sin(math.pi / 4 * (1 - t)) ** 2

    def one_minus_raw(self, t: Tensor) -> Tensor:
        """Return cos(pi/2 (1 - t)) = sin(pi/2 t)."""
        return torch.sin(math.pi / 2 * t)

    def raw_derivative(self, t: Tensor) -> Tensor:
        """Return -pi/2 sin(pi/2 (1 - t))."""
        return -math.pi / 2 * torch.sin(math.pi / 2 * (1 - t))

    def raw_inverse(self, raw: Tensor) -> Tensor:
        """Return 1 - 4/pi arcsin(sqrt(raw / 2))."""
        return 1 - 4 / math.pi * torch.asin((raw / 2).sqrt())


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


class TimeDistribution(Configurable, ABC):
    """A distribution q on [0, 1].

    Args:
        config: Its settings.
    """

    def __init__(self, config: TimeDistributionConfig) -> None:
        self.config = config

    @abstractmethod
    def quantile(self, u: Tensor) -> Tensor:
        """Return the time with probability u below it."""


class UniformTimes(TimeDistribution, config=UniformTimesConfig):
    """The uniform distribution."""

    def quantile(self, u: Tensor) -> Tensor:
        """Return u."""
        return u


class LogitNormal(TimeDistribution, config=LogitNormalConfig):
    """The distribution of t with logit t = log(t / (1 - t)) ~ Normal(mean, std^2)."""

    config: LogitNormalConfig

    def quantile(self, u: Tensor) -> Tensor:
        """Return sigmoid(mean + std Phi^-1(u))."""
        logit: Tensor = self.config.mean + self.config.std * torch.special.ndtri(u)
        return logit.sigmoid()
