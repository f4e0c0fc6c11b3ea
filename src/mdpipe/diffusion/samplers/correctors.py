"""Samplers that mask tokens again to correct them: ReMDM, and a corrector after each ancestral step."""

import torch
from torch import Tensor

from mdpipe.diffusion.denoiser import ConditionalModel
from mdpipe.diffusion.samplers.ancestral import unmask
from mdpipe.diffusion.samplers.base import DiscreteTimeSampler, Start, TimeStep
from mdpipe.params.sampling import PredictorCorrectorConfig, ReMDMConfig


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


class PredictorCorrector(DiscreteTimeSampler, config=PredictorCorrectorConfig):
    """An ancestral step from t to s, then corrector steps: forward from s to t, and an ancestral step back to s.

    Forward, an unmasked token that was not given is masked with probability 1 - alpha(t) / alpha(s). A round goes back
    exactly as far as the step came: as many tokens as the step sampled at once are resampled, given other tokens, and
    the denoiser sees only times on the grid. The mask probability at s is unchanged. With exact conditionals and small
    steps so is the distribution at s, up to the error of sampling several tokens at once.
    """

    def step(self, model: ConditionalModel, x_t: Tensor, step: TimeStep, start: Start) -> Tensor:
        """Return x_s; network call i draws from step i of the random source."""
        calls_per_step = 1 + self.config.num_corrector_steps
        for call in range(calls_per_step):
            u_unmask, u_mask = start.uniform((step.index - 1) * calls_per_step + call + 1, per_token=2)
            if call > 0:
                is_masked_again = start.is_masked & (u_mask >= step.alpha_t / step.alpha_s)
                x_t = torch.where(is_masked_again, model.mask_id, x_t)
            x_t = unmask(model, x_t, step.t, step.unmask_prob, u_unmask)
        return x_t
