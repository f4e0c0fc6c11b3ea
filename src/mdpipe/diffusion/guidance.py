"""Classifier-free guidance: a denoiser that makes more of its class than the one it wraps."""

import torch
from torch import Tensor

from mdpipe.diffusion.denoiser import Denoiser


class Guided:
    """log p = (1 + scale) log p(x | class) - scale log p(x), up to normalisation, in float64.

    Scale 0 is the conditional model. The network runs once, on the batch twice: with its classes and with none.

    Raises:
        ValueError: a negative scale.
    """

    def __init__(self, denoiser: Denoiser, scale: float, no_class: int) -> None:
        if not scale >= 0:
            raise ValueError(f"sample.guidance must be at least 0, not {scale}")
        self._denoiser = denoiser
        self._scale = scale
        self._no_class = no_class

    def __call__(self, tokens: Tensor, time: Tensor, condition: Tensor | None) -> Tensor:
        """Hidden states (B, L, 2 D), those with the class first.

        Raises:
            ValueError: there is no class to be guided by.
        """
        if condition is None:
            raise ValueError("sample.guidance needs classes to guide by, and there are none")
        classes = torch.cat([condition, torch.full_like(condition, self._no_class)])
        hidden = self._denoiser(tokens.repeat(2, 1), time.repeat(2), classes)
        return torch.cat(hidden.chunk(2), dim=-1)

    def head(self, hidden: Tensor) -> Tensor:
        """Logits (..., V) of hidden states (..., 2 D)."""
        with_class, without = (
            self._denoiser.head(states).to(torch.float64).log_softmax(dim=-1) for states in hidden.chunk(2, dim=-1)
        )
        return (1 + self._scale) * with_class - self._scale * without
