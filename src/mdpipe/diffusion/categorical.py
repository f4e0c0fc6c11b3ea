"""Categorical draws in float64, by inverting the cumulative distribution.

Float32 Gumbel noise cannot reach tokens of probability below about 1e-8: over a vocabulary of fifty thousand it
sharpens samples without telling. Here a token of probability p is drawn with probability p to within 2^-53.
"""

import torch
from torch import Tensor


def draw(weights: Tensor, uniforms: Tensor) -> Tensor:
    """The class in whose stretch of the cumulative distribution each uniform falls.

    A class of weight zero has no stretch and is never drawn, not even by a uniform next to 0 or to 1.

    Args:
        weights: (..., V) float64, not negative, of a positive sum: the probabilities, or a multiple of them.
        uniforms: (...) float64 in [0, 1).

    Returns:
        (...) int64 below V.
    """
    cumulative = weights.cumsum(dim=-1)
    # Scaled by the sum, a uniform next to 1 may round to the sum itself, hence the last class with a stretch of its
    # own as the ceiling.
    total = cumulative[..., -1:].contiguous()
    chosen = torch.searchsorted(cumulative, uniforms[..., None] * total, right=True)
    last = torch.searchsorted(cumulative, total, right=False)
    return torch.minimum(chosen, last).squeeze(-1)
