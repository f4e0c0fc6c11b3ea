"""The autoregressive model: the exact -log p(x), one token after the other from the left."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from mdpipe.diffusion.denoiser import Denoiser
from mdpipe.diffusion.objectives.base import ELBO, Objective
from mdpipe.diffusion.objectives.md4 import chunked_token_loss
from mdpipe.params.diffusion import AutoregressiveConfig


class Autoregressive(Objective, config=AutoregressiveConfig):
    """-log p(x) = -sum_n log p(x^n | x^1, ..., x^(n - 1)), by a causal denoiser.

    The denoiser reads the tokens shifted right by one position, with the mask in front as the start token, so that its
    output at position n depends on the tokens before x^n. Its time is 0. There is no randomness.
    """

    is_exact: ClassVar[bool] = True

    @property
    def estimator(self) -> str:
        """Return the name of the estimator."""
        return "exact likelihood"

    def elbo(
        self,
        model: Denoiser,
        x0: Tensor,
        t: Tensor,
        u: Tensor,  # noqa: ARG002 (there is no randomness)
        class_labels: Tensor | None = None,
    ) -> ELBO:
        """Return -log p(x), all of it in `diffusion`."""
        shifted = functional.pad(x0[:, :-1], (1, 0), value=self.mask_id)
        zero = torch.zeros_like(t)
        hidden = model(shifted, zero, class_labels).flatten(0, 1)
        cross_entropy = chunked_token_loss(self, model, hidden, x0.flatten()).view(x0.shape)
        return ELBO(reconstruction=zero, prior=zero, diffusion=cross_entropy.double().sum(dim=1))
