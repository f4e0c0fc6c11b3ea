"""GenMD4's ancestral sampling: each token of the vocabulary has its own schedule (Sec. 6)."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from mdpipe.diffusion.denoiser import ConditionalModel
from mdpipe.diffusion.samplers.ancestral_stepwise import unmask
from mdpipe.diffusion.samplers.base import DiscreteTimeSampler, Start
from mdpipe.params.sampling import GenMD4AncestralConfig


class HasAlpha(Protocol):
    """The part of a schedule that the sampler uses."""

    def alpha(self, t: Tensor, /) -> Tensor:
        """Return the probabilities (..., V) that each token of the vocabulary is still unmasked at times (...).

        A schedule that is the same for all tokens may return (...), without the vocabulary.
        """


@dataclass(frozen=True)
class PerTokenStep:
    """A step from t to s < t, with the probability (V,) that each token is unmasked, or one () for all."""

    index: int
    t: float
    unmask_prob: Tensor


class GenMD4Ancestral(DiscreteTimeSampler, config=GenMD4AncestralConfig):
    r"""From t to s a masked token becomes i with probability (alpha_i(s) - alpha_i(t)) / (1 - alpha_i(t)) mu_i.

    It stays masked with the remaining probability, sum_i (1 - alpha_i(s)) / (1 - alpha_i(t)) mu_i. When a token is
    unmasked thus depends on the network's prediction, and cannot be drawn beforehand. Equal schedules give Algorithm 2.
    """

    def plan(self, schedule: HasAlpha, start: Start) -> list[PerTokenStep]:
        """Return the steps through the grid, and one more at time 0 if a token may still be masked there."""
        times = self.times
        alphas = [*schedule.alpha(times.to(start.tokens.device)).to(torch.float64)]
        if (alphas[-1] < 1).any():
            alphas.append(torch.ones_like(alphas[-1]))
        steps = []
        for index, (t, alpha_t, alpha_s) in enumerate(zip(times.tolist(), alphas, alphas[1:], strict=False), start=1):
            # Where alpha(t) rounds to 1, the token is unmasked with certainty.
            unmask_prob = ((alpha_s - alpha_t) / (1 - alpha_t)).where(alpha_t < 1, 1.0)
            steps.append(PerTokenStep(index, t, unmask_prob))
        return steps

    def step(self, model: ConditionalModel, x_t: Tensor, step: PerTokenStep, start: Start) -> Tensor:
        """Return x_s; step i draws from step i of the random source."""
        (u,) = start.uniform(step.index)
        return unmask(model, x_t, step.t, step.unmask_prob, u)
