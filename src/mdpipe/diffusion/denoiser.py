"""The model as objectives and samplers see it: a denoiser, tokens sampled from its logits, classifier-free guidance.

Temperature, top-k and top-p are followed by an exact categorical draw in float64. Float32 Gumbel noise cannot reach
tokens of probability below about 1e-8: over a vocabulary of fifty thousand it silently sharpens samples. Here the
cumulative distribution is inverted in fixed point, so that a token of probability p is sampled with probability p to
within 2^-53.

Shapes: B batch, L length, D width of the hidden states, V vocabulary; the mask's index is V.
"""

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

FIXED_POINT = 2.0**62
"""A probability of 1 in fixed point; cumulative sums stay below int64's limit."""

MAX_PROBABILITIES = 2**25
"""Maximum number of probabilities (256 MiB of float64) that `ConditionalModel.sample` holds at a time."""


class Denoiser(Protocol):
    """A network that predicts the clean tokens x_0 at the masked positions of x_t.

    The logits over the vocabulary are the expensive part, so they are separate: calling the denoiser returns hidden
    states for all positions, and `head` turns only the needed ones into logits.
    """

    def __call__(self, x_t: Tensor, t: Tensor, class_labels: Tensor | None, /) -> Tensor:
        """Return hidden states (B, L, D) of x_t (B, L) int64, mask included, at t (B,); class_labels (B,) or None."""

    def head(self, hidden: Tensor, /) -> Tensor:
        """Return logits (..., V) over the real tokens, without the mask, of hidden states (..., D)."""


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
    probable, so that results do not depend on the sorting algorithm. `SampleConfig` has the ranges of the fields.
    """

    temperature: float = 1.0
    """Below 1 sharpens, above 1 flattens."""
    top_k: int | None = None
    """Number of tokens to keep; None keeps all."""
    top_p: float | None = None
    """Keep the smallest set of most probable tokens whose total probability reaches this; None keeps all."""

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


@dataclass(frozen=True)
class ConditionalModel:
    """The distributions mu(x_t, t) of a denoiser as `token_sampler` sharpens them."""

    denoiser: Denoiser
    vocab_size: int
    class_labels: Tensor | None
    """(B,) or None."""
    token_sampler: TokenSampler

    @property
    def mask_id(self) -> int:
        """Return the index of the mask."""
        return self.vocab_size

    def hidden(self, x_t: Tensor, t: float | Tensor) -> Tensor:
        """Return hidden states (B, L, D) of x_t (B, L) at one time, or at times (B,)."""
        if not isinstance(t, Tensor):
            t = torch.full(x_t.shape[:1], t, dtype=torch.float64, device=x_t.device)
        return self.denoiser(x_t, t, self.class_labels)

    def probabilities(self, x_t: Tensor, t: float) -> Tensor:
        """Return float64 probabilities (B, L, V) at all positions; those at unmasked positions mean nothing."""
        return self.token_sampler.probabilities(self.denoiser.head(self.hidden(x_t, t)))

    def sample(self, hidden: Tensor, u: Tensor) -> Tensor:
        """Sample a token (...) for each of the hidden states (..., D), by uniforms u (...), in bounded memory."""
        count = 1 + u.numel() * self.vocab_size // MAX_PROBABILITIES
        chunks = zip(hidden.flatten(0, -2).chunk(count), u.flatten().chunk(count), strict=True)
        samples = [self.token_sampler.sample(self.denoiser.head(states), u_chunk) for states, u_chunk in chunks]
        return torch.cat(samples).view(u.shape)

    def mode(self, hidden: Tensor) -> Tensor:
        """Return the most probable token (...) for each of the hidden states (..., D), the first one of a tie."""
        count = 1 + hidden[..., 0].numel() * self.vocab_size // MAX_PROBABILITIES
        modes = [self.denoiser.head(states).argmax(dim=-1) for states in hidden.flatten(0, -2).chunk(count)]
        return torch.cat(modes).view(hidden.shape[:-1])

    def select_rows(self, rows: Tensor) -> "ConditionalModel":
        """Return the model with the class labels of these rows (R,) of the batch."""
        if self.class_labels is None:
            return self
        return replace(self, class_labels=self.class_labels.index_select(0, rows))


class ClassifierFreeGuidance:
    """A denoiser with log p = (1 + scale) log p(x | class) - scale log p(x), up to normalization, in float64.

    Scale 0 is the conditional model. The network runs once, on the batch twice: with class labels and without.
    """

    def __init__(self, denoiser: Denoiser, scale: float, no_class: int) -> None:
        self._denoiser = denoiser
        self._scale = scale
        self._no_class = no_class

    def __call__(self, x_t: Tensor, t: Tensor, class_labels: Tensor | None) -> Tensor:
        """Return hidden states (B, L, 2 D), the conditional ones first.

        Raises:
            ValueError: There are no class labels.
        """
        if class_labels is None:
            raise ValueError("guidance needs class labels, and there are none")
        labels = torch.cat([class_labels, torch.full_like(class_labels, self._no_class)])
        hidden = self._denoiser(x_t.repeat(2, 1), t.repeat(2), labels)
        return torch.cat(hidden.chunk(2), dim=-1)

    def head(self, hidden: Tensor) -> Tensor:
        """Return logits (..., V) of hidden states (..., 2 D)."""
        conditional, unconditional = (
            self._denoiser.head(states).to(torch.float64).log_softmax(dim=-1) for states in hidden.chunk(2, dim=-1)
        )
        return (1 + self._scale) * conditional - self._scale * unconditional
