"""A network small enough to enumerate all masks, and examples to evaluate it on."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

VOCAB_SIZE = 3


class Fixed(nn.Module):
    """Two layers with fixed weights; each position sees all tokens. It does not look at the time."""

    def __init__(self, vocabulary: int = VOCAB_SIZE) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(0)
        self.embedding = nn.Parameter(torch.randn(vocabulary + 1, 4, generator=random))
        self.mixing = nn.Parameter(torch.randn(4, 4, generator=random))
        self.output = nn.Parameter(torch.randn(4, vocabulary, generator=random))

    def forward(self, tokens: Tensor, time: Tensor, class_labels: Tensor | None) -> Tensor:
        embedded = self.embedding[tokens]
        positions = torch.arange(tokens.shape[1])[:, None] / 3
        return torch.tanh(embedded + embedded.cumsum(dim=1) @ self.mixing + positions)

    def head(self, hidden: Tensor) -> Tensor:
        return hidden @ self.output


@dataclass(frozen=True)
class Windows:
    """Tokens (N, L), and a shorter window after them where there is one."""

    whole: NDArray[np.int64]
    tail: NDArray[np.int64] | None = None
    vocab_size: int = VOCAB_SIZE

    @property
    def examples(self) -> int:
        return len(self.whole) + (self.tail is not None)

    def evaluation_batches(self, batch_size: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        for first in range(0, len(self.whole), batch_size):
            indices = np.arange(len(self.whole))[first : first + batch_size]
            yield indices, self.whole[indices]
        if self.tail is not None:
            yield np.array([len(self.whole)]), self.tail[None]


@pytest.fixture(scope="session")
def network() -> Fixed:
    return Fixed()


@pytest.fixture(scope="session")
def windows() -> type[Windows]:
    return Windows
