"""How a token is chosen from a network's logits: temperature, top-k and top-p, then a draw, all in float64.

At its defaults a choice is the plain draw from softmax(logits), the one that keeps a sampler's distribution.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mdpipe.diffusion import categorical


@dataclass(frozen=True)
class Choice:
    """The distribution p^(1 / temperature), cut to its most probable tokens and renormalised.

    The cuts apply in the order of the fields, each to what the one before has left. Of tokens that are equally
    probable, those of smaller index count as the more probable ones, so that a cut never depends on a sort's whim.

    Raises:
        ValueError: a temperature that is not positive, a top_k below 1, or a top_p outside (0, 1].
    """

    temperature: float = 1.0
    """Below 1 sharpens, above 1 flattens."""
    top_k: int | None = None
    """Keep so many tokens; None keeps all."""
    top_p: float | None = None
    """Keep the smallest set of tokens whose mass reaches this, the token that reaches it included; None keeps all."""

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"sample.temperature must be positive, not {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"sample.top_k must be at least 1, not {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"sample.top_p must lie in (0, 1], not {self.top_p}")

    def probabilities(self, logits: Tensor) -> Tensor:
        """Float64 probabilities of logits (..., V) of any floating type; the softmax is taken in float64."""
        p = torch.softmax(logits.to(torch.float64) / self.temperature, dim=-1)
        if self.top_k is None and self.top_p is None:
            return p
        falling, order = p.sort(dim=-1, descending=True, stable=True)
        if self.top_k is not None:
            falling[..., self.top_k :] = 0
        if self.top_p is not None:
            reached = categorical.cumulative_distribution(falling).to(torch.float64)
            before = torch.cat([torch.zeros_like(reached[..., :1]), reached[..., :-1]], dim=-1)
            falling = falling.where(before < self.top_p * reached[..., -1:], 0)
        kept = torch.zeros_like(p).scatter(-1, order, falling)
        return kept / kept.sum(dim=-1, keepdim=True)

    def draw(self, logits: Tensor, uniforms: Tensor) -> Tensor:
        """One token (...) int64 of logits (..., V) by uniforms (...) float64 in [0, 1)."""
        return categorical.draw(self.probabilities(logits), uniforms)
