"""Scaled dot-product attention, by the fastest kernel that there is for the place and the size."""

import torch
from torch import Tensor
from torch.nn import functional

from mdpipe.networks.dropout import dropout

SMALL = 2**22
"""On a CPU, up to this many scores of an example (16 MiB), plain matrix products beat torch's fused kernel, which has a
slow bfloat16 gradient. The batch does not count, or its parts would take other ways than the whole."""


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    causal: bool = False,
    dropout_keys: Tensor | None = None,
    rate: float = 0.0,
) -> Tensor:
    """Compute dropout(softmax(query key' / sqrt(d))) value; exponentials and sums are float32 at least.

    With dropout, whose mask no fused kernel takes, all scores are held in memory.

    Args:
        query: (B, H, L, d).
        key: the same.
        value: the same.
        causal: whether a position sees itself and those before it only.
        dropout_keys: (B, 2) for the mask of the probabilities, or None for no dropout.
        rate: share of the probabilities dropped.

    Returns:
        The same.
    """
    is_large = query.device.type != "cpu" or query.shape[-3:-1].numel() * key.shape[-2] > SMALL
    if is_large and dropout_keys is None:
        return functional.scaled_dot_product_attention(query, key, value, is_causal=causal)
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    if causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(later, -torch.inf)
    return dropout(torch.softmax(scores, dim=-1), dropout_keys, rate) @ value
