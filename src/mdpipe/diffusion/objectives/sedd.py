"""SEDD with an absorbing state (Lou et al., 2024): score entropy, which does not force the scores to sum to one."""

import math

import torch
from torch import Tensor

from mdpipe.diffusion.objectives.base import at_least_float32
from mdpipe.diffusion.objectives.md4 import AbsorbingObjective
from mdpipe.params.diffusion import SEDDConfig


class SEDD(AbsorbingObjective, config=SEDDConfig):
    r"""The bound (eq. 24) of the scores s(m, t)_j = alpha / (1 - alpha) * exp(l_j) / V, a model of q_t(j) / q_t(m).

    With Z = sum_j exp(l_j) / V, which is 1 for the true ratios,

        diffusion = -alpha'(t) / (1 - alpha(t)) * sum over masked n of Z - 1 - l_x + log V

    Since Z - 1 >= log Z, it is at least MD4's with the softmax of the same logits, and equal where Z = 1. Logits of
    0 cost log V per token.
    """

    @property
    def estimator(self) -> str:
        """Return the name of the bound."""
        return "score-entropy bound"

    def token_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return Z - 1 - l_x + log V."""
        logits = at_least_float32(logits)
        surplus = torch.expm1(logits).mean(dim=1)
        return surplus - logits.gather(1, target[:, None]).squeeze(1) + math.log(self.vocab_size)
