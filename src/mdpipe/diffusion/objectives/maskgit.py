"""MaskGIT (Chang et al., 2022): the unweighted cross entropy of a fixed fraction of masked tokens (eq. 28)."""

import torch
from torch import Tensor

from mdpipe.diffusion.denoiser import Denoiser
from mdpipe.diffusion.objectives.md4 import AbsorbingObjective, mask_exactly_k, masked_token_loss
from mdpipe.params.diffusion import MaskGITConfig


class MaskGIT(AbsorbingObjective, config=MaskGITConfig):
    """A loss that is not a bound; evaluated by MD4's bound in continuous time under the same schedule.

    At time t exactly k = ceil((1 - alpha(t)) L) tokens are masked, at least one, and the loss is L times the mean of
    their cross entropies, without the weight -alpha' / (1 - alpha) that would make it MD4's.
    """

    @property
    def estimator(self) -> str:
        """Return the name of the bound."""
        return "md4 bound"

    def loss(self, model: Denoiser, x0: Tensor, t: Tensor, u: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """Return L times the mean cross entropy of the masked tokens, (B,)."""
        length = x0.shape[1]
        k = (self.schedule.one_minus_alpha(t) * length).ceil().clamp(1, length)
        x_t = torch.where(mask_exactly_k(k, u), self.mask_id, x0)
        return length / k * masked_token_loss(self, model, x_t, t, class_labels, x0)
