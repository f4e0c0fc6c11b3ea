"""Scaled dot-product attention with the fastest kernel for the device and the size.

Shapes: B batch, H heads, L length, d channels of a head.
"""

import torch
from torch import Tensor
from torch.nn import functional

from mdpipe.networks.dropout import dropout

MAX_UNFUSED_SCORES = 2**22
"""Largest number of scores of an example (16 MiB) at which plain matrix products are faster on a CPU than torch's fused
kernel, whose bfloat16 gradient is slow. The batch size does not count: a micro-batch must use the same kernel as the
whole batch."""


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    causal: bool = False,
    dropout_keys: Tensor | None = None,
    dropout_rate: float = 0.0,
) -> Tensor:
    """Compute dropout(softmax(query key^T / sqrt(d))) value (Vaswani et al., 2017, eq. 1).

    Exponentials and sums are in float32 or wider. With dropout all scores are kept in memory, because no fused kernel
    accepts a mask of ours.

    Args:
        query: (B, H, L, d).
        key: (B, H, L, d).
        value: (B, H, L, d).
        causal: Whether a position attends only to itself and earlier positions.
        dropout_keys: (B, 2) keys of the attention probabilities' dropout mask, or None for no dropout.
        dropout_rate: Probability of dropping an attention probability.

    Returns:
        (B, H, L, d).
    """
    use_fused = query.device.type != "cpu" or query.shape[-3:-1].numel() * key.shape[-2] > MAX_UNFUSED_SCORES
    if use_fused and dropout_keys is None:
        return functional.scaled_dot_product_attention(query, key, value, is_causal=causal)
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    if causal:
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(future, -torch.inf)
    return dropout(torch.softmax(scores, dim=-1), dropout_keys, dropout_rate) @ value
