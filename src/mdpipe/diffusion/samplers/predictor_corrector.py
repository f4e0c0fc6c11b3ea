"""Predictor-corrector sampling: after each ancestral step, rounds of masking and unmasking at the same noise level."""

import torch
from torch import Tensor

from mdpipe.diffusion.denoiser import ConditionalModel
from mdpipe.diffusion.samplers.ancestral_stepwise import unmask
from mdpipe.diffusion.samplers.base import DiscreteTimeSampler, Start, TimeStep
from mdpipe.params.sampling import PredictorCorrectorConfig


class PredictorCorrector(DiscreteTimeSampler, config=PredictorCorrectorConfig):
    """An ancestral step from t to s, then corrector steps: forward from s to t, and an ancestral step back to s.

    Forward, an unmasked token that was not given is masked with probability 1 - alpha(t) / alpha(s). A round goes back
    exactly as far as the step came: as many tokens as the step drew at once are drawn again, given other tokens, and
    the denoiser sees only times on the grid. The mask probability at s is unchanged. With exact conditionals and small
    steps so is the distribution at s, up to the error of drawing several tokens at once.
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
