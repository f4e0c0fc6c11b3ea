"""Objectives under a scalar schedule: all tokens turn into the mask at one speed."""

import math

import torch
from torch import Tensor

from mdpipe.diffusion.objectives.base import Bound, Objective
from mdpipe.diffusion.schedules.base import Schedule


class Scheduled(Objective):
    """An objective whose corruption keeps each token with probability alpha(t)."""

    def __init__(self, schedule: Schedule, vocabulary: int) -> None:
        super().__init__(vocabulary)
        self.schedule = schedule

    def corrupt(self, tokens: Tensor, time: Tensor, uniforms: Tensor) -> Tensor:
        """Draw x_t from q(x_t | x_0): each token stays with probability alpha(t), else it becomes the mask.

        Args:
            tokens: (B, L) int64 below V.
            time: (B,) float64 in [0, 1].
            uniforms: (B, L) float64 in [0, 1), one a token.
        """
        return torch.where(uniforms < self.schedule.alpha(time)[:, None], tokens, self.mask)

    def with_ends(self, diffusion: Tensor, length: int) -> Bound:
        """The bound of this diffusion part (B,), with the costs of the ends where epsilon keeps alpha from 1 and 0.

        reconstruction = L (1 - alpha(0)) log V      (the masked tokens of time 0, guessed at random)
        prior = L alpha(1) log V                     (App. E)
        """
        guessing = length * math.log(self.vocabulary)
        return Bound(
            reconstruction=guessing * (1 - self.schedule.alpha(torch.zeros_like(diffusion))),
            prior=guessing * self.schedule.alpha(torch.ones_like(diffusion)),
            diffusion=diffusion,
        )
