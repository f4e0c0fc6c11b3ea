"""GenMD4's ancestral sampling: every token of the vocabulary has a schedule of its own (Sec. 6)."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from mdpipe.diffusion.noise import Noise
from mdpipe.diffusion.samplers.ancestral import reveal
from mdpipe.diffusion.samplers.base import OnStep
from mdpipe.diffusion.samplers.conditionals import Conditionals
from mdpipe.diffusion.samplers.walk import GridSampler


class Masking(Protocol):
    """What the sampler asks of a schedule."""

    def alpha(self, time: Tensor, /) -> Tensor:
        """Probabilities (..., V) that each token of the vocabulary is still visible at times (...).

        A schedule that is the same for all tokens may give (...), without the vocabulary.
        """


@dataclass(frozen=True)
class Generalized(GridSampler[Masking]):
    r"""From t to s a masked token becomes i with probability (alpha_i(s) - alpha_i(t)) / (1 - alpha_i(t)) mu_i.

    It stays masked with what remains, sum_i (1 - alpha_i(s)) / (1 - alpha_i(t)) mu_i: when a token is revealed depends
    on what the network takes it for, hence no plan can be made ahead. Equal schedules give Algorithm 2.
    """

    def fill(
        self,
        conditionals: Conditionals,
        schedule: Masking,
        tokens: Tensor,
        noise: Noise,
        examples: Tensor,
        on_step: OnStep,
    ) -> Tensor:
        """Steps 1, 2, ... draw from the noise's steps 1, 2, ..."""
        times = self.times
        alphas = [*schedule.alpha(times.to(tokens.device)).to(torch.float64)]
        if (alphas[-1] < 1).any():
            alphas.append(torch.ones_like(alphas[-1]))
        steps = len(alphas) - 1
        for index, time in enumerate(times[:steps].tolist()):
            alpha_t, alpha_s = alphas[index], alphas[index + 1]
            # A token that rounding shows with certainty at t already is as certain to be revealed.
            share = ((alpha_s - alpha_t) / (1 - alpha_t)).where(alpha_t < 1, 1.0)
            uniforms = noise.uniform(index + 1, examples, tokens.shape[1])
            tokens = reveal(conditionals, tokens, time, share, uniforms)
            on_step(index + 1, steps, tokens)
        return tokens
