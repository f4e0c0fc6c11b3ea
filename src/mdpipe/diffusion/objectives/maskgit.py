"""MaskGIT (Chang et al., 2022): the plain cross entropy of a fixed share of masked tokens (eq. 28)."""

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

    def loss(
        self, denoiser: Denoiser, tokens: Tensor, time: Tensor, uniforms: Tensor, condition: Tensor | None = None
    ) -> Tensor:
        """L times the mean cross entropy of the masked tokens."""
        length = tokens.shape[1]
        counts = (self.schedule.masked(time) * length).ceil().clamp(1, length)
        corrupted = torch.where(exactly_masked(counts, uniforms), self.mask, tokens)
        return length / counts * masked_entropies(denoiser, tokens, corrupted, self.mask, time, condition)
