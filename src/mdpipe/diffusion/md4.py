"""MD4: the continuous-time bound of masked diffusion, an integral of weighted cross entropies at masked positions.

Letters: B examples, L positions, V vocabulary; the mask's index is V. Everything is in nats per example.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from mdpipe.diffusion.denoiser import Denoiser
from mdpipe.diffusion.schedules import Schedule


@dataclass(frozen=True)
class Bound:
    """An estimate of an upper bound on -log p(x), in its parts, each (B,) float64."""

    reconstruction: Tensor
    """Cost of the tokens that are already masked at time 0."""
    prior: Tensor
    """Cost of the tokens that are still visible at time 1."""
    diffusion: Tensor
    """The integrand of eq. 5 at the drawn time and mask; its mean over both is the integral."""

    @property
    def total(self) -> Tensor:
        """The sum of the parts, (B,)."""
        return self.reconstruction + self.prior + self.diffusion


@dataclass(frozen=True)
class MD4:
    """The objective for a masking schedule and a vocabulary."""

    schedule: Schedule
    vocabulary: int

    @property
    def mask(self) -> int:
        """Index of the mask."""
        return self.vocabulary

    def corrupt(self, tokens: Tensor, time: Tensor, uniforms: Tensor) -> Tensor:
        """Draw x_t from q(x_t | x_0): each token stays with probability alpha(t), else it becomes the mask.

        Args:
            tokens: (B, L) int64 below V.
            time: (B,) float64 in [0, 1].
            uniforms: (B, L) float64 in [0, 1), one a token.
        """
        visible = uniforms < self.schedule.alpha(time)[:, None]
        return torch.where(visible, tokens, self.mask)

    def bound(
        self, denoiser: Denoiser, tokens: Tensor, time: Tensor, uniforms: Tensor, condition: Tensor | None = None
    ) -> Bound:
        r"""One draw of the bound of eq. 5, differentiable in the denoiser's weights.

        diffusion = -alpha'(t) / (1 - alpha(t)) * sum over masked n of -log mu^n(x_t, t)[x_0^n]
        reconstruction = L (1 - alpha(0)) log V      (the masked tokens of time 0, guessed at random)
        prior = L alpha(1) log V                     (App. E)

        The head and the softmax run at masked positions only; the softmax in float32 at least.

        Args:
            denoiser: the model.
            tokens: (B, L) int64 below V.
            time: (B,) float64, uniform on [0, 1].
            uniforms: (B, L) float64 in [0, 1), one a token.
            condition: (B,) or None, handed to the denoiser.
        """
        corrupted = self.corrupt(tokens, time, uniforms)
        masked = corrupted == self.mask
        where = masked.flatten().nonzero().squeeze(1)
        hidden = denoiser(corrupted, time, condition).flatten(0, 1).index_select(0, where)
        logits = denoiser.head(hidden)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        entropies = functional.cross_entropy(logits, tokens.flatten()[where], reduction="none")
        entropies_BL = entropies.new_zeros(tokens.shape).masked_scatter(masked, entropies)
        return Bound(
            reconstruction=self._guessing(tokens, 1 - self.schedule.alpha(torch.zeros_like(time))),
            prior=self._guessing(tokens, self.schedule.alpha(torch.ones_like(time))),
            diffusion=self.schedule.weight(time) * entropies_BL.sum(dim=1),
        )

    def _guessing(self, tokens: Tensor, share: Tensor) -> Tensor:
        """Cost of guessing a share (B,) of the tokens uniformly."""
        return tokens.shape[1] * math.log(self.vocabulary) * share
