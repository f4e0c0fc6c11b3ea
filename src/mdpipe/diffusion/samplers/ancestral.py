"""Ancestral sampling: Algorithm 2 to the letter, in float64. The other samplers are measured against it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mdpipe.diffusion.categorical import draw
from mdpipe.diffusion.noise import Noise
from mdpipe.diffusion.samplers.base import OnStep
from mdpipe.diffusion.samplers.conditionals import Conditionals
from mdpipe.diffusion.samplers.walk import PaperSampler
from mdpipe.diffusion.schedules.base import Schedule


@dataclass(frozen=True)
class Ancestral(PaperSampler[Schedule]):
    r"""From t to s every masked token is drawn from one distribution over the vocabulary and the mask:

    (alpha(s) - alpha(t)) / (1 - alpha(t)) mu(x_t, t)  +  (1 - alpha(s)) / (1 - alpha(t)) mask

    A token is therefore drawn once; at all other steps its probabilities are computed for nothing.
    """

    def fill(
        self,
        conditionals: Conditionals,
        schedule: Schedule,
        tokens: Tensor,
        noise: Noise,
        examples: Tensor,
        on_step: OnStep,
    ) -> Tensor:
        """Steps 1, 2, ... draw from the noise's steps 1, 2, ..."""
        walk = self.walk(schedule)
        for done, step in enumerate(walk, start=1):
            if self.takes_mode(step):
                likeliest = conditionals.mode(conditionals.hidden(tokens, step.time))
                tokens = torch.where(tokens == conditionals.mask, likeliest, tokens)
            else:
                uniforms = noise.uniform(done, examples, tokens.shape[1])
                tokens = reveal(conditionals, tokens, step.time, step.share, uniforms)
            on_step(done, len(walk), tokens)
        return tokens


def reveal(conditionals: Conditionals, tokens: Tensor, time: float, share: float | Tensor, uniforms: Tensor) -> Tensor:
    """One step: a masked token becomes i with probability share_i mu_i, and stays masked with what remains.

    Args:
        conditionals: the model.
        tokens: (B, L), at most V.
        time: t.
        share: in [0, 1], one for all tokens or (V,) one for each.
        uniforms: (B, L).
    """
    mu = conditionals.probabilities(tokens, time)
    stays = ((1 - share) * mu).sum(dim=-1, keepdim=True)
    drawn = draw(torch.cat([share * mu, stays], dim=-1), uniforms)
    return torch.where(tokens == conditionals.mask, drawn, tokens)
