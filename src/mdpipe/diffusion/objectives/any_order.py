"""The any-order autoregressive bound (Hoogeboom et al., 2022): MD4's with the time integrated out."""

import torch
from torch import Tensor

from mdpipe.diffusion.denoiser import Denoiser
from mdpipe.diffusion.objectives.base import ELBO, Objective
from mdpipe.diffusion.objectives.md4 import mask_exactly_k, masked_token_loss
from mdpipe.diffusion.schedules.base import Linear
from mdpipe.params.diffusion import AnyOrderConfig


class AnyOrder(Objective, config=AnyOrderConfig):
    """The cost of predicting one token after another, averaged over all orders.

    A uniform number k of 1, ..., L is drawn, and k tokens are masked:

        diffusion = L times the mean over the masked tokens of -log mu[x]

    whose mean is the sum over k of the average cross entropy of a token when k are masked. There is no schedule and
    there are no boundary terms; a time-conditioned denoiser gets the time k / L.
    """

    def __init__(self, config: AnyOrderConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        self.schedule = Linear()
        """For samplers; the bound does not use it."""

    @property
    def estimator(self) -> str:
        """Return the name of the bound."""
        return "any-order bound"

    def elbo(self, model: Denoiser, x0: Tensor, t: Tensor, u: Tensor, class_labels: Tensor | None = None) -> ELBO:
        """Return one draw of the bound; t decides k."""
        length = x0.shape[1]
        k = ((t * length).floor() + 1).clamp(max=length)
        x_t = torch.where(mask_exactly_k(k, u), self.mask_id, x0)
        cross_entropy = masked_token_loss(self, model, x_t, k / length, class_labels, x0)
        zero = torch.zeros_like(t)
        return ELBO(reconstruction=zero, prior=zero, diffusion=length / k * cross_entropy)
