"""Denoisers that are tables: a row of logits for every corrupted sequence, so that all masks can be enumerated.

Letters: L positions, V vocabulary, C = (V + 1)^L corrupted sequences ("contexts").
"""

import itertools

import torch
from torch import Tensor, nn


def contexts(vocabulary: int, length: int) -> Tensor:
    """Every sequence of tokens and masks, (C, L), the last position varying fastest."""
    return torch.tensor(list(itertools.product(range(vocabulary + 1), repeat=length)))


def masks(length: int) -> Tensor:
    """Every set of masked positions, (2^L, L) bool, the empty one first."""
    return torch.tensor(list(itertools.product([False, True], repeat=length)))


class Tabular(nn.Module):
    """Logits (C, L, V) by context, whatever the time; the head adds a bias and counts its rows."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        _, self.length, self.vocabulary = logits.shape
        self.table = nn.Parameter(logits)
        self.bias = nn.Parameter(torch.zeros(self.vocabulary, dtype=logits.dtype))
        self.head_rows = 0

    def forward(self, tokens: Tensor, time: Tensor, condition: Tensor | None) -> Tensor:
        places = (self.vocabulary + 1) ** torch.arange(self.length - 1, -1, -1)
        return self.table[(tokens * places).sum(dim=1)]

    def head(self, hidden: Tensor) -> Tensor:
        self.head_rows += hidden.shape[:-1].numel()
        return hidden + self.bias


def random_table(vocabulary: int, length: int, seed: int) -> Tabular:
    """Logits that are standard normal: the conditionals of no distribution, as those of a network."""
    random = torch.Generator().manual_seed(seed)
    size = ((vocabulary + 1) ** length, length, vocabulary)
    return Tabular(torch.randn(size, generator=random, dtype=torch.float64))


def exact_table(joint: Tensor) -> Tabular:
    """The conditionals of a distribution given as a tensor of L dimensions of size V."""
    length, vocabulary = joint.dim(), len(joint)
    rows = []
    for context in contexts(vocabulary, length).tolist():
        agreeing = joint[tuple(slice(None) if token == vocabulary else slice(token, token + 1) for token in context)]
        for position, token in enumerate(context):
            others = [dimension for dimension in range(length) if dimension != position]
            row = agreeing.sum(dim=others) if token == vocabulary else torch.zeros(vocabulary, dtype=joint.dtype)
            # A context that never occurs, or a token that is known, has no conditional; any will do.
            rows.append(row if row.any() else torch.ones_like(row))
    return Tabular(torch.stack(rows).log().view(-1, length, vocabulary))


def copied_bit() -> Tensor:
    """A fair bit, twice."""
    return torch.eye(2, dtype=torch.float64) / 2


def even_parity() -> Tensor:
    """Three bits of even sum: any two tell nothing of each other, and all of the third."""
    even = [sum(bits) % 2 == 0 for bits in itertools.product(range(2), repeat=3)]
    return torch.tensor(even, dtype=torch.float64).view(2, 2, 2) / 4


def markov_chain() -> Tensor:
    """Four bits, each likely to be as the one before."""
    start = torch.tensor([0.7, 0.3], dtype=torch.float64)
    step = torch.tensor([[0.9, 0.1], [0.2, 0.8]], dtype=torch.float64)
    return torch.einsum("a,ab,bc,cd->abcd", start, step, step, step)


def independent_tokens() -> Tensor:
    """Three tokens of an alphabet of three that know nothing of each other."""
    chances = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    return torch.einsum("a,b,c->abc", chances, chances, chances)


SOURCES = {
    "copied bit": copied_bit(),
    "even parity": even_parity(),
    "Markov chain": markov_chain(),
    "independent tokens": independent_tokens(),
}
