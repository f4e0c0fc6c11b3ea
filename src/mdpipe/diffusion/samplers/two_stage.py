"""Two-stage ancestral sampling (App. G, Alg. 3, "mean"): first draw x_0, then decide which tokens to unmask."""

import torch
from torch import Tensor

from mdpipe.diffusion.denoiser import ConditionalModel
from mdpipe.diffusion.samplers.base import PaperSampler, Start, TimeStep
from mdpipe.params.sampling import TwoStageConfig


class TwoStage(PaperSampler, config=TwoStageConfig):
    """At each masked position x_0 ~ mu(x_t, t), unmasked with probability (alpha(s) - alpha(t)) / (1 - alpha(t)).

    The distribution is that of Algorithm 2. In float32 they differ: there the factor makes rare tokens rarer still, and
    Gumbel noise then loses them.
    """

    def step(self, model: ConditionalModel, x_t: Tensor, step: TimeStep, start: Start) -> Tensor:
        """Return x_s; step i draws from step i of the random source."""
        u_token, u_unmask = start.uniform(step.index, per_token=2)
        hidden = model.hidden(x_t, step.t)
        x0 = model.mode(hidden) if self.takes_mode(step) else model.sample(hidden, u_token)
        return torch.where((x_t == model.mask_id) & (u_unmask < step.unmask_prob), x0, x_t)
