"""Distributions of the training time on [0, 1], sampled through their inverse.

The inverse is monotone, so times that are evenly spread over a batch fall into strata of equal probability.

Shapes: times and probabilities (...), float64.
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from mdpipe.params.diffusion import LogitNormalConfig, TimeDistributionConfig, UniformTimesConfig
from mdpipe.params.kinds import Configurable, implementation


class TimeDistribution(Configurable, ABC):
    """A distribution q on [0, 1] with a density.

    Args:
        config: its settings.
    """

    def __init__(self, config: TimeDistributionConfig) -> None:
        self.config = config

    @abstractmethod
    def quantile(self, u: Tensor) -> Tensor:
        """Return the time with probability u below it."""

    @abstractmethod
    def cdf(self, t: Tensor) -> Tensor:
        """Return the probability of times up to t."""

    @abstractmethod
    def density(self, t: Tensor) -> Tensor:
        """Return q(t)."""


class UniformTimes(TimeDistribution, config=UniformTimesConfig):
    """The uniform distribution."""

    def quantile(self, u: Tensor) -> Tensor:
        """Return u."""
        return u

    def cdf(self, t: Tensor) -> Tensor:
        """Return t."""
        return t

    def density(self, t: Tensor) -> Tensor:
        """Return 1."""
        return torch.ones_like(t)


class LogitNormal(TimeDistribution, config=LogitNormalConfig):
    """The distribution of t with logit t = log(t / (1 - t)) ~ Normal(mean, std^2)."""

    config: LogitNormalConfig

    def quantile(self, u: Tensor) -> Tensor:
        """Return sigmoid(mean + std Phi^-1(u))."""
        logit: Tensor = self.config.mean + self.config.std * torch.special.ndtri(u)
        return logit.sigmoid()

    def cdf(self, t: Tensor) -> Tensor:
        """Return Phi((logit t - mean) / std)."""
        prob: Tensor = torch.special.ndtr(self._standardized(t))
        return prob

    def density(self, t: Tensor) -> Tensor:
        """Return phi((logit t - mean) / std) / (std t (1 - t)), which is 0 at both ends."""
        z = self._standardized(t)
        log_density = -(z**2) / 2 - math.log(self.config.std * math.sqrt(2 * math.pi)) - t.log() - torch.log1p(-t)
        return torch.where((t > 0) & (t < 1), log_density, -torch.inf).exp()

    def _standardized(self, t: Tensor) -> Tensor:
        return (t.logit() - self.config.mean) / self.config.std


def build_time_distribution(config: TimeDistributionConfig) -> TimeDistribution:
    """Build the distribution that a configuration describes."""
    distribution: TimeDistribution = implementation(config)(config)
    return distribution
