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
    costs: Callable[..., Tensor],
    *values: Tensor,
) -> Tensor:
    """Sums (B,) of what each mask of `corrupted` (B, L) costs.

    Args:
        denoiser: the model.
        corrupted: (B, L).
        mask: index of the mask, and size of the vocabulary.
        time: (B,), told to the denoiser like the `condition`.
        condition: (B,) or None.
        costs: `Objective.costs`, of logits and values.
        values: (B, L), of which the masked positions count.
    """
    masked = (corrupted == mask).flatten()
    count = asked_for(masked.sum())  # The head's shapes depend on it; a GPU runs the denoiser while the host waits.
    hidden = denoiser(corrupted, time, condition)
    where = masked.nonzero_static(size=count()).squeeze(1)
    there = [tensor.flatten(0, 1).index_select(0, where) for tensor in (hidden, *values)]
    of_masks = in_chunks(denoiser, there[0], mask, costs, *there[1:])
    return of_masks.new_zeros(len(masked)).index_copy(0, where, of_masks).view(corrupted.shape).sum(dim=1)


def in_chunks(
    denoiser: Denoiser, hidden: Tensor, vocabulary: int, costs: Callable[..., Tensor], *values: Tensor
) -> Tensor:
    """The costs (N,) of hidden states (N, D), as `masked_costs` has them, with a bounded number of logits at a time."""

    def of_states(states: Tensor, *theirs: Tensor) -> Tensor:
        return costs(denoiser.head(states), *theirs)

    count = 1 + torch.float32.itemsize * len(hidden) * vocabulary // CHUNK_BYTES
    if count == 1:
        return of_states(hidden, *values)
    chunks = zip(hidden.chunk(count), *(value.chunk(count) for value in values), strict=True)
    kept = [checkpoint(of_states, *chunk, use_reentrant=False, preserve_rng_state=False) for chunk in chunks]
    return torch.cat(kept)
