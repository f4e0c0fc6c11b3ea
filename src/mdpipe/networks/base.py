"""What a network is, beyond a torch module: something that can be built from params.yaml, trained and saved.

Letters: B examples, L positions, D width, V vocabulary; the mask's index is V.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class Network(nn.Module, ABC):
    """A denoiser. Its constructor takes the vocabulary V and the shape, (L,) or (H, W, C), by position.

    By name it takes `classes`, the number of classes that it is told (0 for none), `causal`, whether a position may
    only depend on those up to it, and the other keys of a run's `network` in params.yaml.

    Its `head`, a module of its own, turns hidden states (..., D) into logits (..., V) of the real tokens.
    """

    dropout: float = 0.0
    """The rate of dropout in training; 0 for a network without."""

    @abstractmethod
    def initialise(self, generator: torch.Generator) -> None:
        """Set all weights, from nothing but the generator; with a head of zeros every token is as likely at first."""

    @abstractmethod
    def forward(
        self, tokens: Tensor, time: Tensor, condition: Tensor | None = None, dropout_keys: Tensor | None = None
    ) -> Tensor:
        """Hidden states (B, L, D) of tokens (B, L) int64, mask included.

        Args:
            tokens: (B, L) int64, at most V.
            time: (B,), which a network need not heed.
            condition: (B,) int64 class labels, the number of classes meaning "no class"; None if there is none at all.
            dropout_keys: (B, 2) int64, the source of this step's dropout masks (`mdpipe.networks.dropout`), or None for
                no dropout.
        """


def layers(network: nn.Module) -> list[nn.Module]:
    """The blocks that a network is made of, which it has in lists: what is sharded and recomputed as a unit."""
    return [layer for child in network.children() if isinstance(child, nn.ModuleList) for layer in child]
