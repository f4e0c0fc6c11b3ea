"""Confidence sampling: MaskGIT's parallel decoding (Chang et al., 2022), which keeps the tokens it is surest of."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mdpipe.diffusion.categorical import draw
from mdpipe.diffusion.noise import Noise
from mdpipe.diffusion.samplers.base import OnStep
from mdpipe.diffusion.samplers.conditionals import Conditionals
from mdpipe.diffusion.samplers.walk import GridSampler
from mdpipe.diffusion.schedules.base import Schedule

SMALLEST_UNIFORM = 2.0**-54
"""In place of a uniform of exactly 0, whose Gumbel number would be infinite."""


@dataclass(frozen=True)
class Confidence(GridSampler[Schedule]):
    """All masked tokens are drawn at every step; of n, all but ceil(n (1 - alpha(s))) stay, the most confident ones.

    A token's confidence is log p of what was drawn plus noise_scale * Gumbel * (share of the steps that remain). After
    the last step nothing is masked. The tokens kept are not those of the reverse process: samples are likelier and
    less varied than the model's distribution.

    Raises:
        ValueError: as every sampler on a grid, or a negative noise_scale.
    """

    noise_scale: float = 4.5
    """0 reveals by confidence alone; a large one, in random order. MaskGIT uses 4.5."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.noise_scale >= 0:
            raise ValueError(f"sample.sampler.noise_scale must be at least 0, not {self.noise_scale}")

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
        walk = self.walk(schedule)[: self.steps]
        unknown = (tokens == conditionals.mask).sum(dim=1, keepdim=True, dtype=torch.float64)
        for done, step in enumerate(walk, start=1):
            what, doubts = noise.uniform(done, examples, 2 * tokens.shape[1]).chunk(2, dim=1)
            p = conditionals.probabilities(tokens, step.time)
            drawn = draw(p, what)
            remaining = 1 - done / self.steps
            confidence = p.gather(-1, drawn[..., None]).squeeze(-1).log()
            confidence += self.noise_scale * remaining * gumbel(doubts)
            masked = tokens == conditionals.mask
            left = torch.ceil(unknown * (1 - step.alpha_s)) if done < self.steps else 0
            order = confidence.where(masked, -torch.inf).argsort(dim=1, descending=True, stable=True)
            rank = order.argsort(dim=1)
            tokens = torch.where(masked & (rank < masked.sum(dim=1, keepdim=True) - left), drawn, tokens)
            on_step(done, self.steps, tokens)
        return tokens


def gumbel(uniforms: Tensor) -> Tensor:
    """Standard Gumbel numbers, all finite, of uniforms in [0, 1)."""
    return -(-uniforms.clamp(min=SMALLEST_UNIFORM).log()).log()
