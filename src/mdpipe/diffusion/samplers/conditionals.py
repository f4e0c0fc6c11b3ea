"""What a sampler knows of the model: the conditional distribution of each masked token, and how one is chosen from it.

Letters: B examples, L positions, D width, V vocabulary; the mask's index is V.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mdpipe.diffusion.choice import Choice
from mdpipe.diffusion.denoiser import Denoiser

PROBABILITIES_AT_ONCE = 2**25
"""Most probabilities (256 MiB of float64) that `draw` holds at a time, whatever the number of tokens it draws."""


@dataclass(frozen=True)
class Conditionals:
    """mu(x_t, t) of a denoiser, for one condition a row, as `choice` sharpens it."""

    denoiser: Denoiser
    vocabulary: int
    condition: Tensor | None
    """(B,) class labels or None."""
    choice: Choice

    @property
    def mask(self) -> int:
        """Index of the mask."""
        return self.vocabulary

    def hidden(self, tokens: Tensor, time: float | Tensor) -> Tensor:
        """Hidden states (B, L, D) of tokens (B, L) at one time, or at times (B,)."""
        if not isinstance(time, Tensor):
            time = torch.full(tokens.shape[:1], time, dtype=torch.float64, device=tokens.device)
        return self.denoiser(tokens, time, self.condition)

    def probabilities(self, tokens: Tensor, time: float) -> Tensor:
        """Float64 probabilities (B, L, V) of the token at every position, those of visible tokens being of no use."""
        return self.choice.probabilities(self.denoiser.head(self.hidden(tokens, time)))

    def draw(self, hidden: Tensor, uniforms: Tensor) -> Tensor:
        """A token (...) for each of the hidden states (..., D) by uniforms (...), a bounded number at a time."""
        count = 1 + uniforms.numel() * self.vocabulary // PROBABILITIES_AT_ONCE
        parts = zip(hidden.flatten(0, -2).chunk(count), uniforms.flatten().chunk(count), strict=True)
        drawn = [self.choice.draw(self.denoiser.head(states), numbers) for states, numbers in parts]
        return torch.cat(drawn).view(uniforms.shape)

    def mode(self, hidden: Tensor) -> Tensor:
        """Return the likeliest token (...) for each of the hidden states (..., D), the first of several equal ones."""
        count = 1 + hidden[..., 0].numel() * self.vocabulary // PROBABILITIES_AT_ONCE
        parts = [self.denoiser.head(states).argmax(dim=-1) for states in hidden.flatten(0, -2).chunk(count)]
        return torch.cat(parts).view(hidden.shape[:-1])

    def of_rows(self, rows: Tensor) -> "Conditionals":
        """The same for these rows (R,) of the batch."""
        return self if self.condition is None else replace(self, condition=self.condition.index_select(0, rows))
