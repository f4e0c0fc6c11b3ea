"""Dropout whose noise is handed in, so that a training step stays a pure function of its arguments.

A channel of an example is dropped at all positions at once ("Dropout1d"), so the noise is a few numbers an example.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn


def kept_channels(uniforms: Tensor | None, rate: float, sites: int) -> list[Tensor | None]:
    """What each of a network's dropout sites multiplies its channels by: 0 at a share `rate` of them, else 1 / (1 - rate).

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
    """A network with dropout."""

    dropout_channels: int
    """How many uniforms an example it takes; 0 without dropout."""

    def __call__(self, tokens: Tensor, time: Tensor, condition: Tensor | None, dropout: Tensor | None, /) -> Tensor: ...

    def head(self, hidden: Tensor, /) -> Tensor: ...


@dataclass(frozen=True)
class WithDropout:
    """A network together with the noise (B, network.dropout_channels) of one step's dropout: a denoiser for that step."""

    network: Droppable
    uniforms: Tensor

    def __call__(self, tokens: Tensor, time: Tensor, condition: Tensor | None) -> Tensor:
        return self.network(tokens, time, condition, self.uniforms)

    def head(self, hidden: Tensor) -> Tensor:
        return self.network.head(hidden)
