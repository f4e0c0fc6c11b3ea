"""Sample tokens from a network's logits: temperature, top-k and top-p, then an exact categorical draw in float64.

Float32 Gumbel noise cannot reach tokens of probability below about 1e-8: over a vocabulary of fifty thousand it
silently sharpens samples. Here the cumulative distribution is inverted in fixed point, so that a token of probability p
is sampled with probability p to within 2^-53.

Shapes: V vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

FIXED_POINT = 2.0**62
"""A probability of 1 in fixed point; cumulative sums stay below int64's limit."""


def cumulative_distribution(weights: Tensor) -> Tensor:
    """Return the cumulative sums of weights / their sum in fixed point, rounded down to multiples of 2^-62.

    Sums of integers do not depend on their order, while a GPU adds the floating-point numbers of a cumulative sum in an
    order that changes from run to run, which torch's deterministic mode refuses.

    Args:
        weights: (..., V) float64, not negative, with a positive sum.

    Returns:
        (..., V) int64, the last of which is about 2^62.
    """
    return (weights * (FIXED_POINT / weights.sum(dim=-1, keepdim=True))).to(torch.int64).cumsum(dim=-1)


def sample_categorical(weights: Tensor, u: Tensor) -> Tensor:
    """Return the category in whose interval of the cumulative distribution each uniform falls.

    A category of weight zero has an empty interval and is never sampled, not even by a uniform next to 0 or to 1.

    Args:
        weights: (..., V) float64, not negative, with a positive sum: probabilities, not necessarily normalized.
        u: (...) float64 in [0, 1).

    Returns:
        (...) int64 below V.
    """
    cumulative = cumulative_distribution(weights)
    total = cumulative[..., -1:]
    # A uniform next to 1 may round to the sum itself.
    point = torch.minimum((u[..., None] * total).to(torch.int64), total - 1)
    return torch.searchsorted(cumulative, point, right=True).squeeze(-1)


@dataclass(frozen=True)
class TokenSampler:
    """Sampling from p^(1 / temperature), truncated to the most probable tokens and renormalized.

    The defaults sample from softmax(logits), which keeps a sampler's distribution. The truncations apply in the order
    of the fields, each to the result of the one before. Ties are broken by index, the smaller one counting as the more
    probable, so that results do not depend on the sorting algorithm.

    Raises:
        ValueError: if temperature is not positive, top_k is below 1, or top_p is outside (0, 1].
    """

    temperature: float = 1.0
    """Below 1 sharpens, above 1 flattens."""
    top_k: int | None = None
    """Number of tokens to keep; None keeps all."""
    top_p: float | None = None
    """Keep the smallest set of most probable tokens whose total probability reaches this; None keeps all."""

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"sample.temperature must be positive, not {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"sample.top_k must be at least 1, not {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"sample.top_p must lie in (0, 1], not {self.top_p}")

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return float64 probabilities (..., V) of logits (..., V) of any floating type."""
        p = torch.softmax(logits.to(torch.float64) / self.temperature, dim=-1)
        if self.top_k is None and self.top_p is None:
            return p
        sorted_p, order = p.sort(dim=-1, descending=True, stable=True)
        if self.top_k is not None:
            sorted_p[..., self.top_k :] = 0
        if self.top_p is not None:
            cumulative = cumulative_distribution(sorted_p).to(torch.float64)
            before = torch.cat([torch.zeros_like(cumulative[..., :1]), cumulative[..., :-1]], dim=-1)
            sorted_p = sorted_p.where(before < self.top_p * cumulative[..., -1:], 0)
        truncated = torch.zeros_like(p).scatter(-1, order, sorted_p)
        return truncated / truncated.sum(dim=-1, keepdim=True)

    def sample(self, logits: Tensor, u: Tensor) -> Tensor:
        """Return a token (...) int64 for each row of logits (..., V), by uniforms u (...) float64 in [0, 1)."""
        return sample_categorical(self.probabilities(logits), u)
