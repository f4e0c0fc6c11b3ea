"""Ancestral sampling: Algorithm 2 as written, in float64. It is the reference for the other samplers."""

import torch
from torch import Tensor

from mdpipe.diffusion.denoiser import ConditionalModel
from mdpipe.diffusion.samplers.base import PaperSampler, Start, TimeStep
from mdpipe.diffusion.token_sampling import sample_categorical
from mdpipe.params.sampling import AncestralStepwiseConfig


class AncestralStepwise(PaperSampler, config=AncestralStepwiseConfig):
    r"""From t to s, each masked token is drawn from a distribution over the vocabulary and the mask (Alg. 2):

    (alpha(s) - alpha(t)) / (1 - alpha(t)) mu(x_t, t)  +  (1 - alpha(s)) / (1 - alpha(t)) mask

    The probabilities of a token are computed at all steps, but it is unmasked at only one of them.
    """

    def step(self, model: ConditionalModel, x_t: Tensor, step: TimeStep, start: Start) -> Tensor:
        """Return x_s; step i draws from step i of the random source."""
        if self.takes_mode(step):
            return torch.where(x_t == model.mask_id, model.mode(model.hidden(x_t, step.t)), x_t)
        (u,) = start.uniform(step.index)
        return unmask(model, x_t, step.t, step.unmask_prob, u)


def unmask(model: ConditionalModel, x_t: Tensor, t: float, unmask_prob: float | Tensor, u: Tensor) -> Tensor:
    """Replace each mask by token i with probability unmask_prob_i mu_i, and keep it with the remaining probability.

    Args:
        model: gives mu.
        x_t: (B, L).
        t: the time.
        unmask_prob: in [0, 1], one for all tokens or (V,).
        u: (B, L) uniforms.
    """
    mu = model.probabilities(x_t, t)
    stay_prob = ((1 - unmask_prob) * mu).sum(dim=-1, keepdim=True)
    samples = sample_categorical(torch.cat([unmask_prob * mu, stay_prob], dim=-1), u)
    return torch.where(x_t == model.mask_id, samples, x_t)
