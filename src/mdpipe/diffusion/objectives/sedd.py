"""SEDD with an absorbing state (Lou et al., 2024): the score entropy of ratios that need not add up (eq. 24)."""

import math

import torch
from torch import Tensor

from mdpipe.diffusion.denoiser import Denoiser
from mdpipe.diffusion.objectives.base import Bound
from mdpipe.diffusion.objectives.masked import masked_logits, total_by_example
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
        masked = corrupted == self.mask
        logits_NV = masked_logits(denoiser, corrupted, self.mask, time, condition)
        surplus_N = torch.expm1(logits_NV).mean(dim=1)
        hidden_N = logits_NV.gather(1, tokens[masked][:, None]).squeeze(1)
        entropies = total_by_example(surplus_N - hidden_N + math.log(self.vocabulary), masked)
        return self.with_ends(self.schedule.weight(time) * entropies, tokens.shape[1])
