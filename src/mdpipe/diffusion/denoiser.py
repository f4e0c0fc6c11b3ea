"""What an objective and a sampler ask of a network, and all that they know of it."""

from typing import Protocol

from torch import Tensor


class Denoiser(Protocol):
    """A network that reads corrupted tokens and says what each masked one may have been.

    The vocabulary's logits are the expensive part, so they come apart from the rest: calling the denoiser gives hidden
    states for every position, and `head` turns only those that are needed into logits.
    """

    def __call__(self, tokens: Tensor, time: Tensor, condition: Tensor | None, /) -> Tensor:
        """Hidden states (B, L, D) of tokens (B, L) int64, mask included, at times (B,); condition is (B,) or None."""

    def head(self, hidden: Tensor, /) -> Tensor:
        """Logits (..., V) over the real tokens, never the mask, of hidden states (..., D)."""
