"""Sources whose entropy is known, and denoisers that are tables, to check a bound by enumeration.

Shapes: B batch, L length, V vocabulary, S sequences of positive probability, C = (V + 1)^L sequences of tokens and
masks ("contexts"). A joint distribution is a float64 tensor with L dimensions of size V; entropies are in nats.
"""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from mdpipe.diffusion.denoiser import Denoiser
from mdpipe.diffusion.objectives.base import Objective
from mdpipe.diffusion.objectives.genmd4 import PerTokenSchedule


def independent_tokens(frequencies: list[float], length: int) -> Tensor:
    """Return the distribution of independent tokens."""
    joint = torch.ones((), dtype=torch.float64)
    for _ in range(length):
        joint = joint[..., None] * torch.tensor(frequencies, dtype=torch.float64)
    return joint


def copied_token(frequencies: list[float]) -> Tensor:
    """Return the distribution of a token and its copy."""
    return torch.tensor(frequencies, dtype=torch.float64).diag()


def even_parity(length: int) -> Tensor:
    """Return the distribution of bits of even sum: all but one are independent, and determine the last."""
    is_even = [sum(bits) % 2 == 0 for bits in itertools.product(range(2), repeat=length)]
    return torch.tensor(is_even, dtype=torch.float64).view([2] * length) / len(is_even) * 2


def markov_chain(start: list[float], transitions: list[list[float]], length: int) -> Tensor:
    """Return the distribution of a Markov chain."""
    joint = torch.tensor(start, dtype=torch.float64)
    for _ in range(length - 1):
        joint = joint[..., None] * torch.tensor(transitions, dtype=torch.float64)
    return joint


def zipf(vocab_size: int) -> Tensor:
    """Return Zipf's frequencies, in which token r has a probability proportional to 1 / (r + 1)."""
    frequencies = torch.arange(1, vocab_size + 1, dtype=torch.float64).reciprocal()
    return frequencies / frequencies.sum()


def random_joint(vocab_size: int, length: int, seed: int) -> Tensor:
    """Return a distribution whose log-probabilities are standard normal, up to their normalization."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn([vocab_size] * length, generator=generator, dtype=torch.float64)
    return logits.flatten().softmax(dim=0).view_as(logits)


@dataclass(frozen=True)
class Source:
    """A joint distribution, and the number of units (tokens, bytes) per sequence that bits are divided by."""

    joint: Tensor
    units: float

    @property
    def vocab_size(self) -> int:
        """Return V."""
        return len(self.joint)

    @property
    def sequences(self) -> Tensor:
        """Return the sequences of positive probability, (S, L)."""
        return self.joint.nonzero()

    @property
    def probabilities(self) -> Tensor:
        """Return their probabilities, (S,)."""
        return self.joint[self.joint > 0]

    @property
    def entropy(self) -> float:
        """Return the entropy of a sequence in nats."""
        return self.cross_entropy(self.joint)

    def cross_entropy(self, model: Tensor) -> float:
        """Return the mean of -log q(x) in nats, for the joint distribution q of a model."""
        return -(self.probabilities @ model[self.joint > 0].log()).item()


SOURCES: dict[str, Source] = {
    name: Source(joint, joint.dim())
    for name, joint in {
        "fair coins": independent_tokens([0.5, 0.5], 2),
        "independent tokens": independent_tokens([0.2, 0.3, 0.5], 3),
        "copied bit": copied_token([0.5, 0.5]),
        "copied rare bit": copied_token([0.9, 0.1]),
        "even parity": even_parity(3),
        "Markov chain": markov_chain([0.7, 0.3], [[0.9, 0.1], [0.2, 0.8]], 4),
        "Markov chain of 3 tokens": markov_chain(
            [0.6, 0.3, 0.1], [[0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.5, 0.4, 0.1]], 3
        ),
        "Zipf, 64 tokens": zipf(64),
    }.items()
}
"""Independent and dependent tokens, of even and uneven frequencies, in sequences of 1 to 4."""


def contexts(vocab_size: int, length: int) -> Tensor:
    """Return every sequence of tokens and masks, (C, L), the last position varying fastest."""
    return torch.tensor(list(itertools.product(range(vocab_size + 1), repeat=length)))


def masks(length: int) -> Tensor:
    """Return every set of masked positions, (2^L, L) bool, the empty one first."""
    return torch.tensor(list(itertools.product([False, True], repeat=length)))


class WithLogits:
    """A denoiser whose hidden states are logits."""

    def head(self, hidden: Tensor) -> Tensor:
        """Return the hidden states, which are logits."""
        return hidden


class Table(WithLogits, nn.Module):
    """A denoiser with a row of logits for each context, (C, L, V), whatever the time."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        _, self.length, self.vocab_size = logits.shape
        self.table = nn.Parameter(logits)

    def forward(self, tokens: Tensor, t: Tensor, class_labels: Tensor | None) -> Tensor:  # noqa: ARG002
        """Return the logits of the contexts `tokens` (B, L) as hidden states (B, L, V)."""
        return self.table[self.rows(tokens)]

    def rows(self, tokens: Tensor) -> Tensor:
        """Return the row of each context (B, L) in the table, (B,)."""
        place_values = (self.vocab_size + 1) ** torch.arange(self.length - 1, -1, -1)
        return (tokens * place_values).sum(dim=1)


class CausalTable(Table):
    """A table that reads, at each position, the context in which all later tokens are masked."""

    def forward(self, tokens: Tensor, t: Tensor, class_labels: Tensor | None) -> Tensor:
        """Return logits (B, L, V) of which those at a position depend on the tokens up to there."""
        known = torch.ones(self.length, self.length).tril().bool()
        columns = [
            super(CausalTable, self).forward(tokens.where(row, self.vocab_size), t, class_labels) for row in known
        ]
        return torch.stack([column[:, position] for position, column in enumerate(columns)], dim=1)


class Posterior(WithLogits):
    """The exact conditionals P(x_0^n | x_t) of a distribution, as logits log(V P).

    With one schedule per token they depend on the time: a mask is more likely to hide a token that is masked early.
    """

    def __init__(self, joint: Tensor, schedule: PerTokenSchedule | None = None) -> None:
        self.schedule = schedule
        self.vocab_size = len(joint)
        self.sequences = joint.nonzero()
        self.probabilities = joint[joint > 0]

    @torch.no_grad()
    def __call__(self, tokens: Tensor, t: Tensor, class_labels: Tensor | None) -> Tensor:  # noqa: ARG002
        """Return logits (B, L, V) at x_t (B, L) and times (B,); those of a context that never occurs are all 0."""
        is_masked = (tokens == self.vocab_size)[:, None]
        weights = (is_masked | (tokens[:, None] == self.sequences)).all(dim=2) * self.probabilities
        if self.schedule is not None:
            weights *= torch.where(is_masked, self.schedule.one_minus_alpha(t)[:, self.sequences], 1).prod(dim=2)
        one_hot = functional.one_hot(self.sequences, self.vocab_size).double()
        rows = torch.einsum("bs,slv->blv", weights, one_hot)
        total = weights.sum(dim=1)[:, None, None]
        return torch.where(total > 0, self.vocab_size * rows / total, 1).log()


class Recorder(nn.Module):
    """A denoiser that records the tokens and times it is called with."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.tokens = self.times = torch.empty(0)

    def forward(self, tokens: Tensor, t: Tensor, class_labels: Tensor | None) -> Tensor:
        """Return what the denoiser returns."""
        self.tokens, self.times = tokens, t
        return self.denoiser(tokens, t, class_labels)

    def head(self, hidden: Tensor) -> Tensor:
        """Return what the denoiser's head returns."""
        return self.denoiser.head(hidden)


class CausalPosterior(WithLogits):
    """The best causal denoiser for an objective: P(x_0^n | its inputs up to position n), as logits log(V P).

    The inputs are those that the objective makes of each sequence, so it needs no convention about how they are
    shifted, and an objective that shows the denoiser its target has a cost of 0.
    """

    def __init__(self, joint: Tensor, objective: Objective) -> None:
        self.source = Source(joint, joint.dim())
        sequences = self.source.sequences
        recorder = Recorder(random_table(len(joint), joint.dim(), seed=0, is_causal=True))
        with torch.no_grad():
            u = torch.zeros(sequences.shape, dtype=torch.float64)
            objective.elbo(recorder, sequences, u[:, 0], u)
        self.inputs = recorder.tokens

    @torch.no_grad()
    def __call__(self, tokens: Tensor, t: Tensor, class_labels: Tensor | None) -> Tensor:  # noqa: ARG002
        """Return logits (B, L, V)."""
        agrees = (tokens[:, None] == self.inputs).cumprod(dim=2)  # (B, S, L): up to each position
        weights = agrees * self.source.probabilities[:, None]
        one_hot = functional.one_hot(self.source.sequences, self.source.vocab_size).double()
        rows = torch.einsum("bsl,slv->blv", weights, one_hot)
        return (self.source.vocab_size * rows / rows.sum(dim=2, keepdim=True)).log()


def exact_denoiser(objective: Objective, joint: Tensor) -> Denoiser:
    """Return the exact conditionals of a distribution, given what the objective shows to its denoiser."""
    if objective.is_causal:
        return CausalPosterior(joint, objective)
    schedule = getattr(objective, "schedule", None)
    if isinstance(schedule, PerTokenSchedule):
        return Posterior(joint, schedule)
    every_context = contexts(len(joint), joint.dim())
    return Table(Posterior(joint)(every_context, torch.zeros(len(every_context)), None))


def random_table(vocab_size: int, length: int, seed: int, *, is_causal: bool = False) -> Table:
    """Return standard normal logits: like those of a network, they are the conditionals of no distribution."""
    generator = torch.Generator().manual_seed(seed)
    size = ((vocab_size + 1) ** length, length, vocab_size)
    logits = torch.randn(size, generator=generator, dtype=torch.float64)
    return CausalTable(logits) if is_causal else Table(logits)
