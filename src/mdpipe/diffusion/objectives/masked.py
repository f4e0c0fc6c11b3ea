"""What all objectives with a mask share: masking tokens, and what the logits cost where they are masked.

The head and the softmax run at the masked positions alone, N of them in a batch (B, L), and on a bounded number of them
at a time: no tensor of all positions, or all masked ones, and the vocabulary is ever made. Where there are several such
chunks, each computes its logits a second time on the way back, which costs a third of the head's work more and makes
the gradient exact with the costs' weights in it. (torch's `linear_cross_entropy`, from 2.13 on, fuses this for a linear
head and a cross entropy; the objectives here need other functions of the logits too, and torch 2.11 does not have it.)
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from mdpipe.diffusion.count import asked_for
from mdpipe.diffusion.denoiser import Denoiser

CHUNK_BYTES = 2**26
"""Most that the float32 logits of a chunk take."""


def exactly_masked(counts: Tensor, uniforms: Tensor) -> Tensor:
    """The `counts` (B,) positions of the smallest uniforms (B, L), as (B, L) bool: all sets of a size are as likely."""
    ranks = uniforms.argsort(dim=1).argsort(dim=1)
    return ranks < counts[:, None]


def masked_costs(
    denoiser: Denoiser,
    corrupted: Tensor,
    mask: int,
    time: Tensor,
    condition: Tensor | None,
    cost: Callable[..., Tensor],
    *values: Tensor,
) -> Tensor:
    """Sums (B,) of what each mask of `corrupted` (B, L) costs.

    Args:
        denoiser: the model.
        corrupted: (B, L).
        mask: index of the mask, and size of the vocabulary.
        time: (B,), told to the denoiser like the `condition`.
        condition: (B,) or None.
        cost: what n tokens cost, (n,), from their logits (n, V), in float32 at least, and their `values`, each (n,).
        values: (B, L), of which the masked positions count.
    """
    masked = (corrupted == mask).flatten()
    count = asked_for(masked.sum())  # The head's shapes depend on it; a GPU runs the denoiser while the host waits.
    hidden = denoiser(corrupted, time, condition)
    where = masked.nonzero_static(size=count()).squeeze(1)
    there = [tensor.flatten(0, 1).index_select(0, where) for tensor in (hidden, *values)]
    costs = in_chunks(denoiser, there[0], mask, cost, *there[1:])
    return costs.new_zeros(len(masked)).index_copy(0, where, costs).view(corrupted.shape).sum(dim=1)


def in_chunks(
    denoiser: Denoiser, hidden: Tensor, vocabulary: int, cost: Callable[..., Tensor], *values: Tensor
) -> Tensor:
    """The costs (N,) of hidden states (N, D), as `masked_costs` has them, with a bounded number of logits at a time."""

    def costs(states: Tensor, *theirs: Tensor) -> Tensor:
        logits = denoiser.head(states)
        return cost(logits.to(torch.promote_types(logits.dtype, torch.float32)), *theirs)

    count = 1 + torch.float32.itemsize * len(hidden) * vocabulary // CHUNK_BYTES
    if count == 1:
        return costs(hidden, *values)
    chunks = zip(hidden.chunk(count), *(value.chunk(count) for value in values), strict=True)
    kept = [checkpoint(costs, *chunk, use_reentrant=False, preserve_rng_state=False) for chunk in chunks]
    return torch.cat(kept)


def entropy(logits: Tensor, tokens: Tensor) -> Tensor:
    """-log mu[x], (n,), of logits (n, V) and tokens x (n,)."""
    return functional.cross_entropy(logits, tokens, reduction="none")


def masked_entropies(
    denoiser: Denoiser,
    tokens: Tensor,
    corrupted: Tensor,
    mask: int,
    time: Tensor,
    condition: Tensor | None,
) -> Tensor:
    """Sums (B,) over the masks of `corrupted` (B, L) of -log mu[x], with x the token (B, L) that is hidden there."""
    return masked_costs(denoiser, corrupted, mask, time, condition, entropy, tokens)
