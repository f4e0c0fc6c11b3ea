"""MaskGIT (Chang et al., 2022): the plain cross entropy of a fixed share of masked tokens (eq. 28)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mdpipe.diffusion.denoiser import Denoiser
from mdpipe.diffusion.objectives.masked import exactly_masked, masked_entropies
from mdpipe.diffusion.objectives.md4 import MD4
from mdpipe.diffusion.schedules.base import Schedule


class MaskGIT(MD4):
    """Trained by a loss that bounds nothing, evaluated by MD4's bound in continuous time under the same schedule.

    At time t exactly ceil((1 - alpha(t)) L) tokens are masked, one at least, and the loss is L times the mean of their
    cross entropies, without the weight -alpha' / (1 - alpha) that would make it MD4's.
    """

    def __init__(self, schedule: Schedule, vocabulary: int) -> None:
        super().__init__(schedule, vocabulary)

    def mask_counts(self, time: Tensor, uniforms: Tensor) -> Tensor | None:
        """Of the one draw."""
        return self._masks(time, uniforms.shape[1]).sum(dim=0, keepdim=True).long()

    def loss(
        self,
        denoiser: Denoiser,
        tokens: Tensor,
        time: Tensor,
        uniforms: Tensor,
        condition: Tensor | None = None,
        counts: Sequence[int] | None = None,
    ) -> Tensor:
        """L times the mean cross entropy of the masked tokens."""
        length = tokens.shape[1]
        masks_B = self._masks(time, length)
        corrupted = torch.where(exactly_masked(masks_B, uniforms), self.mask, tokens)
        count = None if counts is None else counts[0]
        return length / masks_B * masked_entropies(denoiser, tokens, corrupted, self.mask, time, condition, count)

    def _masks(self, time: Tensor, length: int) -> Tensor:
        """Masks in each example, (B,) float64."""
        return (self.schedule.masked(time) * length).ceil().clamp(1, length)
