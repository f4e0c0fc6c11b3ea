"""Remasking (ReMDM, Wang et al., 2025): a token that was revealed may go back to the mask and be thought over."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mdpipe.diffusion.noise import Noise
from mdpipe.diffusion.samplers.ancestral import reveal
from mdpipe.diffusion.samplers.base import OnStep
from mdpipe.diffusion.samplers.conditionals import Conditionals
from mdpipe.diffusion.samplers.walk import GridSampler
from mdpipe.diffusion.schedules.base import Schedule


@dataclass(frozen=True)
class Remasking(GridSampler[Schedule]):
    """From t to s, with sigma = eta min(1, (1 - alpha(s)) / alpha(t)),

    a visible token that was not given is masked with probability sigma, and
    a masked one is revealed with probability (alpha(s) - (1 - sigma) alpha(t)) / (1 - alpha(t)).

    More are revealed to make up for those masked: a token is visible at s with probability alpha(s), whatever eta.
    At eta = 0 this is ancestral sampling. The last step masks nothing.

    Raises:
        ValueError: as every sampler on a grid, or an eta outside [0, 1].
    """

    eta: float = 0.1
    """Share of the largest probability of masking that keeps the marginals."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.eta <= 1:
            raise ValueError(f"sample.sampler.eta must lie in [0, 1], not {self.eta}")

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
        walk, given = self.walk(schedule), tokens != conditionals.mask
        for done, step in enumerate(walk, start=1):
            uniforms = noise.uniform(done, examples, tokens.shape[1])
            # alpha(t) is 0 at time 1 of a schedule without epsilon, where nothing is visible.
            sigma = self.eta * min(1.0, (1 - step.alpha_s) / step.alpha_t) if step.alpha_t > 0 else self.eta
            share = (step.alpha_s - (1 - sigma) * step.alpha_t) / (1 - step.alpha_t)
            masked_again = (tokens != conditionals.mask) & ~given & (uniforms < sigma)
            revealed = reveal(conditionals, tokens, step.time, share, uniforms)
            tokens = torch.where(masked_again, conditionals.mask, revealed)
            on_step(done, len(walk), tokens)
        return tokens
