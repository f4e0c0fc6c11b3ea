"""Categorical draws by inverting the cumulative distribution, exact to 2^-53.

Float32 Gumbel noise cannot reach tokens of probability below about 1e-8: over a vocabulary of fifty thousand it
sharpens samples without telling. Here a token of probability p is drawn with probability p to within 2^-53.
"""

import torch
from torch import Tensor

FIXED_POINT = 2.0**62
"""What a probability of 1 is in fixed point; sums of a distribution stay below int64's limit."""


def cumulative_distribution(weights: Tensor) -> Tensor:
    """Return the cumulative sums of weights / their sum in fixed point, rounded down to multiples of 2^-62.

    Sums of integers do not depend on their order, while a GPU adds floating-point numbers of a cumulative sum in an
    order that changes from run to run, which torch's deterministic mode refuses.

    Args:
        weights: (..., V) float64, not negative, of a positive sum.

    Returns:
        (..., V) int64, of which the last is about 2^62.
    """
    return (weights * (FIXED_POINT / weights.sum(dim=-1, keepdim=True))).to(torch.int64).cumsum(dim=-1)


def draw(weights: Tensor, uniforms: Tensor) -> Tensor:
    """Return the class in whose part of the cumulative distribution each uniform falls.

    A class of weight zero has no part and is never drawn, not even by a uniform next to 0 or to 1.

    Args:
        weights: (..., V) float64, not negative, of a positive sum: the probabilities, or a multiple of them.
        uniforms: (...) float64 in [0, 1).

    Returns:
        (...) int64 below V.
    """
    cumulative = cumulative_distribution(weights)
    total = cumulative[..., -1:]
    # A uniform next to 1 may round to the sum itself.
    point = torch.minimum((uniforms[..., None] * total).to(torch.int64), total - 1)
    return torch.searchsorted(cumulative, point, right=True).squeeze(-1)
