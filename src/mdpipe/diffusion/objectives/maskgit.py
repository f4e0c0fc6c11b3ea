"""MaskGIT (Chang et al., 2022): the plain cross entropy of a fixed share of masked tokens (eq. 28)."""

import torch
from torch import Tensor

from mdpipe.diffusion.denoiser import Denoiser
from mdpipe.diffusion.objectives.masked import exactly_masked, masked_costs
from mdpipe.diffusion.objectives.md4 import MD4
from mdpipe.diffusion.schedules.base import Schedule


class MaskGIT(MD4):
    """Trained by a loss that bounds nothing, evaluated by MD4's bound in continuous time under the same schedule.

    At time t exactly ceil((1 - alpha(t)) L) tokens are masked, one at least, and the loss is L times the mean of their
    cross entropies, without the weight -alpha' / (1 - alpha) that would make it MD4's.
    """

    def __init__(self, schedule: Schedule, vocabulary: int) -> None:
        super().__init__(schedule, vocabulary)

    def loss(
        self, denoiser: Denoiser, tokens: Tensor, time: Tensor, uniforms: Tensor, condition: Tensor | None = None
    ) -> Tensor:
        """L times the mean cross entropy of the masked tokens."""
        length = tokens.shape[1]
        masks_B = self._masks(time, length)
        corrupted = torch.where(exactly_masked(masks_B, uniforms), self.mask, tokens)
        return length / masks_B * masked_costs(denoiser, corrupted, self.mask, time, condition, self.costs, tokens)

    def _masks(self, time: Tensor, length: int) -> Tensor:
        """Masks in each example, (B,) float64."""
        return (self.schedule.masked(time) * length).ceil().clamp(1, length)
