"""MaskGIT's parallel decoding (Chang et al., 2022), which keeps the most confident tokens."""

import torch
from torch import Tensor

from mdpipe.diffusion.denoiser import ConditionalModel
from mdpipe.diffusion.samplers.base import DiscreteTimeSampler, Start, TimeStep
from mdpipe.diffusion.schedules.base import Schedule
from mdpipe.diffusion.token_sampling import sample_categorical
from mdpipe.params.sampling import MaskGITSamplerConfig

MIN_UNIFORM = 2.0**-54
"""Replaces a uniform of exactly 0, whose Gumbel number would be infinite."""


class MaskGIT(DiscreteTimeSampler, config=MaskGITSamplerConfig):
    """Sample all masked tokens at each step; of n, keep all but ceil(n (1 - alpha(s))), the most confident ones.

    A token's confidence is log p of the sampled token plus noise_scale * Gumbel * (fraction of steps that remain): a
    noise_scale of 0 unmasks by confidence only, a large one in random order.
    After the last step nothing is masked. The choice of tokens differs from the reverse process: samples are more
    probable and less varied than the model's distribution.
    """

    def plan(self, schedule: Schedule, start: Start) -> list[TimeStep]:  # noqa: ARG002
        """Return the steps of the grid; the last one leaves nothing for another at time 0."""
        return self.time_steps(schedule)[: self.config.steps]

    def step(self, model: ConditionalModel, x_t: Tensor, step: TimeStep, start: Start) -> Tensor:
        """Return x_s; step i draws from step i of the random source."""
        u_token, u_gumbel = start.uniform(step.index, per_token=2)
        p = model.probabilities(x_t, step.t)
        samples = sample_categorical(p, u_token)
        confidence = p.gather(-1, samples[..., None]).squeeze(-1).log()
        confidence += self.config.noise_scale * (1 - step.index / self.config.steps) * gumbel(u_gumbel)
        is_masked = x_t == model.mask_id
        num_unknown = start.is_masked.sum(dim=1, keepdim=True, dtype=torch.float64)
        num_left = torch.ceil(num_unknown * (1 - step.alpha_s)) if step.index < self.config.steps else 0
        order = confidence.where(is_masked, -torch.inf).argsort(dim=1, descending=True, stable=True)
        rank = order.argsort(dim=1)
        return torch.where(is_masked & (rank < is_masked.sum(dim=1, keepdim=True) - num_left), samples, x_t)


def gumbel(u: Tensor) -> Tensor:
    """Return standard Gumbel numbers, all finite, for uniforms in [0, 1)."""
    return -(-u.clamp(min=MIN_UNIFORM).log()).log()
