"""What all objectives with a mask share: masking tokens, and looking at a denoiser's logits where they are masked.

The head and the softmax run at the masked positions alone, N of them in a batch (B, L), the softmax in float32 at
least.
"""

import torch
from torch import Tensor
from torch.nn import functional

from mdpipe.diffusion.denoiser import Denoiser


def exactly_masked(counts: Tensor, uniforms: Tensor) -> Tensor:
    """The `counts` (B,) positions of the smallest uniforms (B, L), as (B, L) bool: all sets of a size are as likely."""
    ranks = uniforms.argsort(dim=1).argsort(dim=1)
    return ranks < counts[:, None]


def masked_logits(denoiser: Denoiser, corrupted: Tensor, mask: int, time: Tensor, condition: Tensor | None) -> Tensor:
    """The denoiser's logits (N, V), in float32 at least, at the masks of `corrupted` (B, L)."""
    where = (corrupted == mask).flatten().nonzero().squeeze(1)
    hidden = denoiser(corrupted, time, condition).flatten(0, 1).index_select(0, where)
    logits = denoiser.head(hidden)
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def total_by_example(values: Tensor, masked: Tensor) -> Tensor:
    """Sums (B,) of values (N,) that belong to the masked (B, L) positions."""
    return values.new_zeros(masked.shape).masked_scatter(masked, values).sum(dim=1)


def masked_entropies(
    denoiser: Denoiser, tokens: Tensor, corrupted: Tensor, mask: int, time: Tensor, condition: Tensor | None
) -> Tensor:
    """Sums (B,) over the masks of `corrupted` (B, L) of -log mu[x], with x the token (B, L) that is hidden there."""
    logits = masked_logits(denoiser, corrupted, mask, time, condition)
    masked = corrupted == mask
    return total_by_example(functional.cross_entropy(logits, tokens[masked], reduction="none"), masked)
