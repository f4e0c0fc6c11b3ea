"""The any-order autoregressive bound (Hoogeboom et al., 2022): MD4's with the time integrated out."""

import torch
from torch import Tensor

from mdpipe.diffusion.denoiser import Denoiser
from mdpipe.diffusion.objectives.base import Bound, Objective
from mdpipe.diffusion.objectives.masked import exactly_masked, masked_costs
from mdpipe.diffusion.schedules.linear import Linear


class AnyOrder(Objective):
    """The mean over orders of the cost of a token after a token, each given those before it.

    A number n of 1, ..., L is drawn, and n tokens are masked:

        diffusion = L times the mean over the masked tokens of -log mu[x]

    whose mean is the sum over n of the average cross entropy of a token when n are masked. There is no schedule and
    there are no ends; a denoiser that asks for the time is told n / L.
    """

    def __init__(self, vocabulary: int) -> None:
        super().__init__(vocabulary)
        self.schedule = Linear()
        """What a sampler may walk along; the bound does not use it."""

    @property
    def estimator(self) -> str:
        """The bound over all orders."""
        return "any-order bound"

    def bound(
        self, denoiser: Denoiser, tokens: Tensor, time: Tensor, uniforms: Tensor, condition: Tensor | None = None
    ) -> Bound:
        """One draw of the bound; the time decides n."""
        length = tokens.shape[1]
        counts = ((time * length).floor() + 1).clamp(max=length)
        corrupted = torch.where(exactly_masked(counts, uniforms), self.mask, tokens)
        entropies = masked_costs(denoiser, corrupted, self.mask, counts / length, condition, self.costs, tokens)
        nothing = torch.zeros_like(time)
        return Bound(reconstruction=nothing, prior=nothing, diffusion=length / counts * entropies)
