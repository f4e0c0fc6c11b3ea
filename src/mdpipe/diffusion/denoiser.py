"""The model as objectives and samplers see it: a denoiser, its conditional distributions, classifier-free guidance.

Shapes: B batch, L length, D width of the hidden states, V vocabulary; the mask's index is V.
"""

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from mdpipe.diffusion.token_sampling import TokenSampler

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
        samples = [self.token_sampler.sample(self.denoiser.head(states), uniforms) for states, uniforms in chunks]
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

    Raises:
        ValueError: if the scale is negative.
    """

    def __init__(self, denoiser: Denoiser, scale: float, no_class: int) -> None:
        if not scale >= 0:
            raise ValueError(f"the scale of guidance must be at least 0, not {scale}")
        self._denoiser = denoiser
        self._scale = scale
        self._no_class = no_class

    def __call__(self, x_t: Tensor, t: Tensor, class_labels: Tensor | None) -> Tensor:
        """Return hidden states (B, L, 2 D), the conditional ones first.

        Raises:
            ValueError: if there are no class labels.
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
