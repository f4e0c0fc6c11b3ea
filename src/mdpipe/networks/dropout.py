"""Dropout whose noise is handed in, so that a training step stays a pure function of its arguments.

A channel of an example is dropped at all positions at once ("Dropout1d"), so the noise is a few numbers an example.
"""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


def kept_channels(uniforms: Tensor | None, rate: float, sites: int) -> list[Tensor | None]:
    """What each dropout site of a network multiplies its channels by: 0 at a share `rate` of them, else 1 / (1 - rate).

    Args:
        uniforms: (B, sites * D) in [0, 1), or None for no dropout.
        rate: share of the channels dropped.
        sites: number of places in the network.

    Returns:
        `sites` tensors (B, D) float32, or as many None.
    """
    if uniforms is None or rate == 0:
        return [None] * sites
    return list(((uniforms >= rate).float() / (1 - rate)).chunk(sites, dim=1))


class Droppable(Protocol):
    """A network that can drop channels."""

    @property
    def dropout_channels(self) -> int:
        """How many uniforms an example it takes; 0 where params.yaml asks for no dropout."""

    def __call__(self, tokens: Tensor, time: Tensor, condition: Tensor | None, dropout: Tensor | None, /) -> Tensor:
        """Hidden states (B, L, D); `dropout` is (B, dropout_channels) or None for no dropout."""

    def head(self, hidden: Tensor, /) -> Tensor:
        """Logits (..., V) of hidden states (..., D)."""


@dataclass(frozen=True)
class WithDropout:
    """A network together with the noise of one step's dropout: the denoiser of that step.

    Called by itself, without this, a network drops nothing, whether in training mode or not.
    """

    network: Droppable
    uniforms: Tensor
    """(B, network.dropout_channels) in [0, 1)."""

    def __call__(self, tokens: Tensor, time: Tensor, condition: Tensor | None) -> Tensor:
        """Hidden states (B, L, D) with channels dropped."""
        return self.network(tokens, time, condition, self.uniforms)

    def head(self, hidden: Tensor) -> Tensor:
        """The network's own head."""
        return self.network.head(hidden)
