"""Denoisers that are tables, with a row of logits for every sequence of tokens and masks, to enumerate all masks.

Shapes: L positions, V vocabulary, C = (V + 1)^L sequences of tokens and masks ("contexts").
"""

import torch
from torch import Tensor, nn

from mdpipe.evaluation import enumerated
from mdpipe.evaluation.enumerated import contexts, copied_token, even_parity, independent_tokens


class Tabular(enumerated.Table):
    """Logits (C, L, V) by context, whatever the time; the head adds a bias and counts its rows."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__(logits)
        self.bias = nn.Parameter(torch.zeros(self.vocab_size, dtype=logits.dtype))
        self.head_rows = 0

    def head(self, hidden: Tensor) -> Tensor:
        self.head_rows += hidden.shape[:-1].numel()
        return hidden + self.bias


class Timed(Tabular):
    """A table whose logits (C, L, V) drift with the time, by `drift` (C, L, V) from time 0 to 1."""

    def __init__(self, logits: Tensor, drift: Tensor) -> None:
        super().__init__(logits)
        self.drift = nn.Parameter(drift)

    def forward(self, tokens: Tensor, time: Tensor, class_labels: Tensor | None) -> Tensor:
        rows = self.rows(tokens)
        return self.table[rows] + time[:, None, None] * self.drift[rows]


class Causal(enumerated.CausalTable, Tabular):
    """A table that reads, at each position, the context in which all later tokens are masked."""


def random_table(vocab_size: int, length: int, seed: int) -> Tabular:
    """Return standard normal logits: like those of a network, they are the conditionals of no distribution."""
    return Tabular(enumerated.random_table(vocab_size, length, seed).table.detach())


def random_timed(vocab_size: int, length: int, seed: int) -> Timed:
    """Return standard normal logits and drifts."""
    first, second = (random_table(vocab_size, length, number) for number in (seed, seed + 1))
    return Timed(first.table.detach(), second.table.detach())


def exact_table(joint: Tensor) -> Tabular:
    """Return the conditionals of a distribution, given as a tensor with L dimensions of size V."""
    length, vocab_size = joint.dim(), len(joint)
    rows = []
    for context in contexts(vocab_size, length).tolist():
        agreeing = joint[tuple(slice(None) if token == vocab_size else slice(token, token + 1) for token in context)]
        for position, token in enumerate(context):
            others = [dimension for dimension in range(length) if dimension != position]
            row = agreeing.sum(dim=others) if token == vocab_size else torch.zeros(vocab_size, dtype=joint.dtype)
            # A context that never occurs, or a known token, has no conditional; any value is fine.
            rows.append(row if row.any() else torch.ones_like(row))
    return Tabular(torch.stack(rows).log().view(-1, length, vocab_size))


def copied_bit() -> Tensor:
    """Return the distribution of a fair bit and its copy."""
    return copied_token([0.5, 0.5])


def markov_chain() -> Tensor:
    """Return the distribution of four bits, each likely to equal the one before."""
    return enumerated.markov_chain([0.7, 0.3], [[0.9, 0.1], [0.2, 0.8]], 4)


SOURCES = {
    "copied bit": copied_bit(),
    "even parity": even_parity(3),
    "Markov chain": markov_chain(),
    "independent tokens": independent_tokens([0.2, 0.3, 0.5], 3),
}
