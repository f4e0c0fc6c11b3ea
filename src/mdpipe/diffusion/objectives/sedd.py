"""SEDD with an absorbing state (Lou et al., 2024): the score entropy of ratios that need not add up (eq. 24)."""

import math

import torch
from torch import Tensor

from mdpipe.diffusion.denoiser import Denoiser
from mdpipe.diffusion.objectives.base import Bound
from mdpipe.diffusion.objectives.masked import masked_costs
from mdpipe.diffusion.objectives.scheduled import Scheduled


class SEDD(Scheduled):
    r"""The bound of the model s(m, t)_j = alpha / (1 - alpha) * exp(l_j) / V of the ratios q_t(j) / q_t(m).

    With Z = sum_j exp(l_j) / V, which the true ratios would make 1,

        diffusion = -alpha'(t) / (1 - alpha(t)) * sum over masked n of Z - 1 - l_x + log V

    Since Z - 1 >= log Z it is at least MD4's with the softmax of the same logits, and the same where Z = 1. Logits of
    0 cost log V a token.
    """

    @property
    def estimator(self) -> str:
        """The bound by the score entropy."""
        return "score-entropy bound"

    def bound(
        self, denoiser: Denoiser, tokens: Tensor, time: Tensor, uniforms: Tensor, condition: Tensor | None = None
    ) -> Bound:
        """One draw of the bound."""
        corrupted = self.corrupt(tokens, time, uniforms)
        entropies = masked_costs(denoiser, corrupted, self.mask, time, condition, self.costs, tokens)
        return self.with_ends(self.schedule.weight(time) * entropies, tokens.shape[1])

    def cost(self, logits: Tensor, tokens: Tensor) -> Tensor:
        """Z - 1 - l_x + log V."""
        surplus = torch.expm1(logits).mean(dim=1)
        return surplus - logits.gather(1, tokens[:, None]).squeeze(1) + math.log(self.vocabulary)
