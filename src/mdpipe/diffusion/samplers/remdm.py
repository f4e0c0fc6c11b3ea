"""Remasking (ReMDM, Wang et al., 2025): unmasked tokens may be masked again and resampled."""

import torch
from torch import Tensor

from mdpipe.diffusion.denoiser import ConditionalModel
from mdpipe.diffusion.samplers.ancestral_stepwise import unmask
from mdpipe.diffusion.samplers.base import DiscreteTimeSampler, Start, TimeStep
from mdpipe.params.sampling import ReMDMConfig


class ReMDM(DiscreteTimeSampler, config=ReMDMConfig):
    """From t to s, with sigma = eta min(1, (1 - alpha(s)) / alpha(t)),

    an unmasked token that was not given is masked with probability sigma, and
    a masked one is unmasked with probability (alpha(s) - (1 - sigma) alpha(t)) / (1 - alpha(t)).

    More tokens are unmasked to compensate for those masked: a token is unmasked at s with probability alpha(s) for all
    eta. With eta = 0 this is ancestral sampling. The last step masks nothing.
    """

    def step(self, model: ConditionalModel, x_t: Tensor, step: TimeStep, start: Start) -> Tensor:
        """Return x_s; step i draws from step i of the random source."""
        eta = self.config.eta
        (u,) = start.uniform(step.index)
        # alpha(t) is 0 at time 1 of a schedule without epsilon, where nothing is unmasked.
        sigma = eta * min(1.0, (1 - step.alpha_s) / step.alpha_t) if step.alpha_t > 0 else eta
        unmask_prob = (step.alpha_s - (1 - sigma) * step.alpha_t) / (1 - step.alpha_t)
        is_masked_again = (x_t != model.mask_id) & start.is_masked & (u < sigma)
        return torch.where(is_masked_again, model.mask_id, unmask(model, x_t, step.t, unmask_prob, u))
