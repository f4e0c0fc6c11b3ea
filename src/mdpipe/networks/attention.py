"""Scaled dot-product attention, by the fastest kernel that there is for the place and the size."""

import torch
from torch import Tensor
from torch.nn import functional

SMALL = 2**22
"""On a CPU, up to this many scores of an example (16 MiB), plain matrix products beat torch's fused kernel, which has a
slow bfloat16 gradient. The batch does not count, or its parts would take other ways than the whole."""


def attend(query: Tensor, key: Tensor, value: Tensor, *, causal: bool = False) -> Tensor:
    """softmax(query key' / sqrt(d)) value; the softmax's exponentials and sums are float32 at least.

    Args:
        query: (B, H, L, d).
        key: the same.
        value: the same.
        causal: whether a position sees itself and those before it only.

    Returns:
        The same.
    """
    if query.device.type != "cpu" or query.shape[-3:-1].numel() * key.shape[-2] > SMALL:
        return functional.scaled_dot_product_attention(query, key, value, is_causal=causal)
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    if causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(later, -torch.inf)
    return torch.softmax(scores, dim=-1) @ value
