"""The autoregressive model: -log p(x) itself, one token after the other from the left."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from mdpipe.diffusion.denoiser import Denoiser
from mdpipe.diffusion.objectives.base import Bound, Objective
from mdpipe.diffusion.objectives.masked import in_chunks


class Autoregressive(Objective):
    """-log p(x) = -sum_n log p(x^n | x^1, ..., x^(n - 1)), by a causal denoiser.

    It reads the tokens one position to the right, with the mask in front, so that its output at position n knows what
    precedes x^n. It is told time 0. There is no noise: all draws are the same.
    """

    causal: ClassVar[bool] = True
    exact: ClassVar[bool] = True

    @property
    def estimator(self) -> str:
        """No bound."""
        return "exact likelihood"

    def bound(
        self,
        denoiser: Denoiser,
        tokens: Tensor,
        time: Tensor,
        uniforms: Tensor,  # noqa: ARG002 (there is no noise)
        condition: Tensor | None = None,
    ) -> Bound:
        """-log p(x), all of it in `diffusion`."""
        before = functional.pad(tokens[:, :-1], (1, 0), value=self.mask)
        nothing = torch.zeros_like(time)
        hidden = denoiser(before, nothing, condition).flatten(0, 1)
        entropies = in_chunks(denoiser, hidden, self.vocabulary, self.costs, tokens.flatten()).view(tokens.shape)
        return Bound(reconstruction=nothing, prior=nothing, diffusion=entropies.double().sum(dim=1))
