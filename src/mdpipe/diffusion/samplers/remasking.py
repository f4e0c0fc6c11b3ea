"""Remasking (ReMDM, Wang et al., 2025): unmasked tokens may be masked again and resampled."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mdpipe.diffusion.denoiser import ConditionalModel
from mdpipe.diffusion.samplers.ancestral import unmask
from mdpipe.diffusion.samplers.base import DiscreteTimeSampler, Start, TimeStep


@dataclass(frozen=True)
class Remasking(DiscreteTimeSampler):
    """From t to s, with sigma = eta min(1, (1 - alpha(s)) / alpha(t)),

    an unmasked token that was not given is masked with probability sigma, and
    a masked one is unmasked with probability (alpha(s) - (1 - sigma) alpha(t)) / (1 - alpha(t)).

    More tokens are unmasked to compensate for those masked: a token is unmasked at s with probability alpha(s) for all
    eta. With eta = 0 this is ancestral sampling. The last step masks nothing.

    Raises:
        ValueError: as `DiscreteTimeSampler`, or if eta is outside [0, 1].
    """

    eta: float = 0.1
    """Fraction of the largest probability of masking that keeps the marginals."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.eta <= 1:
            raise ValueError(f"sample.sampler.eta must lie in [0, 1], not {self.eta}")

    def step(self, model: ConditionalModel, x_t: Tensor, step: TimeStep, start: Start) -> Tensor:
        """Return x_s; step i draws from step i of the random source."""
        (u,) = start.uniform(step.index)
        # alpha(t) is 0 at time 1 of a schedule without epsilon, where nothing is unmasked.
        sigma = self.eta * min(1.0, (1 - step.alpha_s) / step.alpha_t) if step.alpha_t > 0 else self.eta
        unmask_prob = (step.alpha_s - (1 - sigma) * step.alpha_t) / (1 - step.alpha_t)
        is_masked_again = (x_t != model.mask_id) & start.is_masked & (u < sigma)
        return torch.where(is_masked_again, model.mask_id, unmask(model, x_t, step.t, unmask_prob, u))
