"""A denoiser small enough to enumerate every mask."""

import itertools

import pytest
import torch
from torch import Tensor

VOCABULARY, LENGTH = 3, 3


class Fixed(torch.nn.Module):
    """A random table in float64: what it sees at all positions decides the logits of each. It does not use the time."""

    def __init__(self) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(0)
        contexts = (VOCABULARY + 1) ** LENGTH
        hidden = torch.randn(contexts, LENGTH, 4, generator=random, dtype=torch.float64)
        self.table = torch.nn.Parameter(hidden)
        self.output = torch.nn.Parameter(torch.randn(4, VOCABULARY, generator=random, dtype=torch.float64))
        self.head_rows = 0

    def forward(self, tokens: Tensor, time: Tensor, condition: Tensor | None) -> Tensor:
        place = (VOCABULARY + 1) ** torch.arange(LENGTH)
        return self.table[(tokens * place).sum(dim=1)]

    def head(self, hidden: Tensor) -> Tensor:
        self.head_rows += hidden.shape[:-1].numel()
        return hidden @ self.output


@pytest.fixture
def fixed() -> Fixed:
    return Fixed()


@pytest.fixture(scope="session")
def all_masks() -> Tensor:
    """(2^3, 3) bool, every set of masked positions."""
    return torch.tensor(list(itertools.product([False, True], repeat=LENGTH)))
