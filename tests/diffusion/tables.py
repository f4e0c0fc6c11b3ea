"""Denoisers that are tables, with a row of logits for every sequence of tokens and masks, to enumerate all masks.

Shapes: L positions, V vocabulary, C = (V + 1)^L sequences of tokens and masks ("contexts").
"""

import itertools

import torch
from torch import Tensor, nn

from mdpipe.diffusion.objectives.genmd4 import PerTokenSchedule


def contexts(vocab_size: int, length: int) -> Tensor:
    """Return every sequence of tokens and masks, (C, L), the last position varying fastest."""
    return torch.tensor(list(itertools.product(range(vocab_size + 1), repeat=length)))


def masks(length: int) -> Tensor:
    """Return every set of masked positions, (2^L, L) bool, the empty one first."""
    return torch.tensor(list(itertools.product([False, True], repeat=length)))


class Tabular(nn.Module):
    """Logits (C, L, V) by context, whatever the time; the head adds a bias and counts its rows."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        _, self.length, self.vocab_size = logits.shape
        self.table = nn.Parameter(logits)
        self.bias = nn.Parameter(torch.zeros(self.vocab_size, dtype=logits.dtype))
        self.head_rows = 0

    def forward(self, tokens: Tensor, time: Tensor, class_labels: Tensor | None) -> Tensor:
        places = (self.vocab_size + 1) ** torch.arange(self.length - 1, -1, -1)
        return self.table[(tokens * places).sum(dim=1)]

    def head(self, hidden: Tensor) -> Tensor:
        self.head_rows += hidden.shape[:-1].numel()
        return hidden + self.bias


class Timed(Tabular):
    """A table whose logits (C, L, V) drift with the time, by `drift` (C, L, V) from time 0 to 1."""

    def __init__(self, logits: Tensor, drift: Tensor) -> None:
        super().__init__(logits)
        self.drift = nn.Parameter(drift)

    def forward(self, tokens: Tensor, time: Tensor, class_labels: Tensor | None) -> Tensor:
        places = (self.vocab_size + 1) ** torch.arange(self.length - 1, -1, -1)
        context = (tokens * places).sum(dim=1)
        return self.table[context] + time[:, None, None] * self.drift[context]


class Causal(Tabular):
    """A table that reads, at each position, the context in which all later tokens are masked."""

    def forward(self, tokens: Tensor, time: Tensor, class_labels: Tensor | None) -> Tensor:
        known = torch.ones(self.length, self.length).tril().bool()
        columns = [super(Causal, self).forward(tokens.where(row, self.vocab_size), time, class_labels) for row in known]
        return torch.stack([column[:, position] for position, column in enumerate(columns)], dim=1)


class Posterior:
    """The exact conditionals P(x_0^n | x_t) of a distribution with one schedule per token.

    They depend on the time: a mask is more likely to hide a token that is masked early.
    """

    def __init__(self, joint: Tensor, schedule: PerTokenSchedule) -> None:
        self.schedule = schedule
        self.sequences = joint.nonzero()
        self.chances = joint[joint > 0]

    @torch.no_grad()
    def __call__(self, tokens: Tensor, time: Tensor, class_labels: Tensor | None) -> Tensor:
        mask = len(self.schedule.w)
        masked = (tokens == mask)[:, None]
        agreeing = (masked | (tokens[:, None] == self.sequences)).all(dim=2)
        hiding = torch.where(masked, self.schedule.one_minus_alpha(time)[:, self.sequences], 1).prod(dim=2)
        weights = agreeing * hiding * self.chances
        return torch.einsum("bs,slv->blv", weights, nn.functional.one_hot(self.sequences, mask).double()).log()

    def head(self, hidden: Tensor) -> Tensor:
        return hidden


def random_table(vocab_size: int, length: int, seed: int) -> Tabular:
    """Return standard normal logits: like those of a network, they are the conditionals of no distribution."""
    random = torch.Generator().manual_seed(seed)
    size = ((vocab_size + 1) ** length, length, vocab_size)
    return Tabular(torch.randn(size, generator=random, dtype=torch.float64))


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
    return torch.eye(2, dtype=torch.float64) / 2


def even_parity() -> Tensor:
    """Return the distribution of three bits of even sum: any two are independent, and determine the third."""
    even = [sum(bits) % 2 == 0 for bits in itertools.product(range(2), repeat=3)]
    return torch.tensor(even, dtype=torch.float64).view(2, 2, 2) / 4


def markov_chain() -> Tensor:
    """Return the distribution of four bits, each likely to equal the one before."""
    start = torch.tensor([0.7, 0.3], dtype=torch.float64)
    step = torch.tensor([[0.9, 0.1], [0.2, 0.8]], dtype=torch.float64)
    return torch.einsum("a,ab,bc,cd->abcd", start, step, step, step)


def independent_tokens() -> Tensor:
    """Return the distribution of three independent tokens."""
    chances = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    return torch.einsum("a,b,c->abc", chances, chances, chances)


SOURCES = {
    "copied bit": copied_bit(),
    "even parity": even_parity(),
    "Markov chain": markov_chain(),
    "independent tokens": independent_tokens(),
}
