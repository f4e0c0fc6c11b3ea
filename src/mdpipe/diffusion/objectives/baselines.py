"""Objectives that MD4 is compared with: D3PM, SEDD, MaskGIT, any-order and left-to-right autoregression.

Shapes: B batch, L length, N masked positions of a batch, V vocabulary. Everything is in nats per example.
"""

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from mdpipe.diffusion.denoiser import Denoiser
from mdpipe.diffusion.objectives.base import ELBO, Objective
from mdpipe.diffusion.objectives.md4 import (
    AbsorbingObjective,
    WeightedObjective,
    chunked_token_loss,
    mask_exactly_k,
    masked_token_losses,
)
from mdpipe.diffusion.schedules.base import DiscreteTime, Linear, TimeDistribution
from mdpipe.params.diffusion import AnyOrderConfig, AutoregressiveConfig, D3PMConfig, MaskGITConfig, SEDDConfig


class D3PM(WeightedObjective, config=D3PMConfig):
    """D3PM with an absorbing state (Austin et al., 2021): MD4's bound in T steps, with an auxiliary loss. It minimizes

        bound + auxiliary * sum over masked n of -log mu^n(x_t, t)[x_0^n]

    The second term does not weight small times more. It contributes to the gradient of the loss only, not to its value.
    `loss_weight: flat` gives the first term the weight 1, too.
    The weight is that of D3PM's eq. 5. Its code scales the bound by 1 / T, so that the code's 0.001 is 0.001 T here.
    """

    estimator = "d3pm bound"

    def __init__(self, config: D3PMConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        self.auxiliary = config.auxiliary
        self.discrete_time = DiscreteTime(config.timesteps, "uniform")

    def training_value(self, weight: Tensor, cross_entropy: Tensor, length: int) -> Tensor:
        """Return the loss (B,) of one mask, with the gradient of the auxiliary term added to its own."""
        auxiliary = self.auxiliary * cross_entropy
        return super().training_value(weight, cross_entropy, length) + auxiliary - auxiliary.detach()


class SEDD(WeightedObjective, config=SEDDConfig):
    r"""SEDD with an absorbing state (Lou et al., 2024): score entropy, with scores that need not sum to one.

    The scores s(m, t)_j = alpha / (1 - alpha) * exp(l_j) / V model q_t(j) / q_t(m), and the bound is eq. 24.

    With Z = sum_j exp(l_j) / V, which is 1 for the true ratios,

        diffusion = -alpha'(t) / (1 - alpha(t)) * sum over masked n of Z - 1 - l_x + log V

    Since Z - 1 >= log Z, it is at least MD4's with the softmax of the same logits, and equal where Z = 1. Logits of
    0 cost log V per token.
    """

    estimator = "score-entropy bound"

    def token_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return Z - 1 - l_x + log V."""
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        surplus = torch.expm1(logits).mean(dim=1)
        return surplus - logits.gather(1, target[:, None]).squeeze(1) + math.log(self.vocab_size)


class MaskGIT(AbsorbingObjective, config=MaskGITConfig):
    """MaskGIT (Chang et al., 2022): the cross entropy of a fixed fraction of masked tokens.

    This is not a bound, so MD4's in continuous time under the same schedule evaluates it.

    At time t exactly k = ceil((1 - alpha(t)) L) tokens are masked, at least one. By default the loss is L times the
    mean of their cross entropies, as in MaskGIT's code. It weighs k masked tokens by L / k, which under the linear
    schedule is about 1 / t, MD4's own weight. With `loss_weight: flat` it is their sum, as eq. 28 has it.
    """

    estimator = "md4 bound"

    def __init__(self, config: MaskGITConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        self.time_distribution = TimeDistribution.build(config.time_distribution)
        self.is_flat = config.loss_weight == "flat"

    def loss(self, model: Denoiser, x0: Tensor, t: Tensor, u: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """Return the sum of the masked tokens' cross entropies, or L times their mean, (B,)."""
        t, length = self.time_distribution.quantile(t), x0.shape[1]
        k = (self.schedule.one_minus_alpha(t) * length).ceil().clamp(1, length)
        x_t = torch.where(mask_exactly_k(k, u), self.mask_id, x0)
        cross_entropy = masked_token_losses(self, model, x_t, t, class_labels, x0).sum(dim=1)
        return cross_entropy.double() if self.is_flat else length / k * cross_entropy


class AnyOrder(Objective, config=AnyOrderConfig):
    """The any-order autoregressive bound (Hoogeboom et al., 2022): tokens in random order.

    k is uniform on 1, ..., L, and k tokens are masked:

        diffusion = L times the mean over the masked tokens of -log mu[x]

    whose mean is the sum over k of the average cross entropy of a token when k are masked. It needs no schedule and
    no boundary terms; a time-conditioned denoiser gets the time k / L.
    """

    estimator = "any-order bound"

    def __init__(self, config: AnyOrderConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        self.time_distribution = TimeDistribution.build(config.time_distribution)
        self.is_flat = config.loss_weight == "flat"
        self.schedule = Linear()
        """Schedule for samplers; the bound does not use it."""

    def loss(self, model: Denoiser, x0: Tensor, t: Tensor, u: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """Return the bound, or without the weight L / k the sum over the masked tokens, with k from a quantile t."""
        t = self.time_distribution.quantile(t)
        if not self.is_flat:
            return self.elbo(model, x0, t, u, class_labels).total
        return self._cross_entropy(model, x0, t, u, class_labels)[1].double()

    def elbo(self, model: Denoiser, x0: Tensor, t: Tensor, u: Tensor, class_labels: Tensor | None = None) -> ELBO:
        """Return one Monte Carlo sample of the bound; t decides k."""
        k, cross_entropy = self._cross_entropy(model, x0, t, u, class_labels)
        zero = torch.zeros_like(t)
        return ELBO(reconstruction=zero, prior=zero, diffusion=x0.shape[1] / k * cross_entropy)

    def _cross_entropy(
        self, model: Denoiser, x0: Tensor, t: Tensor, u: Tensor, class_labels: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the number k of masked tokens and the sum of their cross entropies, each (B,)."""
        length = x0.shape[1]
        k = ((t * length).floor() + 1).clamp(max=length)
        x_t = torch.where(mask_exactly_k(k, u), self.mask_id, x0)
        return k, masked_token_losses(self, model, x_t, k / length, class_labels, x0).sum(dim=1)


class Autoregressive(Objective, config=AutoregressiveConfig):
    """Left to right: the exact -log p(x) = -sum_n log p(x^n | x^1, ..., x^(n - 1)), by a causal denoiser.

    The denoiser reads the tokens shifted right by one position, with the mask in front as the start token, so that its
    output at position n depends on the tokens before x^n. Its time is 0, and nothing is random.
    """

    estimator = "exact likelihood"
    is_exact: ClassVar[bool] = True

    def elbo(
        self,
        model: Denoiser,
        x0: Tensor,
        t: Tensor,
        u: Tensor,  # noqa: ARG002 (there is no randomness)
        class_labels: Tensor | None = None,
    ) -> ELBO:
        """Return -log p(x), all of it in `diffusion`."""
        zero = torch.zeros_like(t)
        hidden = self.hidden(model, x0, class_labels).flatten(0, 1)
        cross_entropy = chunked_token_loss(self, model, hidden, x0.flatten()).view(x0.shape)
        return ELBO(reconstruction=zero, prior=zero, diffusion=cross_entropy.double().sum(dim=1))

    def hidden(self, model: Denoiser, x0: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """Return hidden states (B, L, D), at position n of the tokens before x^n."""
        shifted = functional.pad(x0[:, :-1], (1, 0), value=self.mask_id)
        return model(shifted, torch.zeros(len(x0), dtype=torch.float64, device=x0.device), class_labels)
