"""Sources of known entropy, denoisers that are tables, and the mean of an objective's `elbo` by enumeration.

An objective may use its time and uniforms as it likes. A probe replaces random ones by the representatives that an
enumeration would use. Where no value changes, the mean over times and masks is a sum over all masks, and over all steps
or the nodes of a quadrature over time. Otherwise it is a quasi-Monte Carlo estimate with a standard error.

Shapes: B batch, L length, V vocabulary, S sequences of positive probability, C = (V + 1)^L sequences of tokens and
masks ("contexts"), D samples of time and mask, R replicates, T times. A joint distribution is a float64 tensor with L
dimensions of size V; entropies and bounds are in nats.
"""

import itertools
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.quasirandom import SobolEngine

from mdpipe.diffusion.denoiser import Denoiser
from mdpipe.diffusion.objectives.base import Objective
from mdpipe.diffusion.objectives.genmd4 import PerTokenSchedule
from mdpipe.evaluation.estimate import Estimate

REPLICATES = 24
"""Independent scramblings of the quasi-Monte Carlo points, whose spread is the standard error."""
SAMPLED_ROWS = 2**15
"""Points of each, for all sequences together."""
NODES = (96, 64)
"""Quadrature nodes over time. The second number only serves to estimate the error of the first."""
PROBES = 4096
"""Random samples for which the shortcut of an enumeration must give the value of `elbo`."""
SAME = 1e-9
"""Relative difference of two values that is taken for rounding."""
MAX_ROWS = 2**17
"""Samples that the denoiser is given at a time."""
LAST = 1 - 2.0**-53
"""The largest uniform: its token is masked at any alpha but 1."""


def independent_tokens(frequencies: list[float], length: int) -> Tensor:
    """Return the distribution of independent tokens."""
    return markov_chain(frequencies, [frequencies] * len(frequencies), length)


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
        return -(self.probabilities @ self.probabilities.log()).item()


def contexts(vocab_size: int, length: int) -> Tensor:
    """Return every sequence of tokens and masks, (C, L), the last position varying fastest."""
    return torch.tensor(list(itertools.product(range(vocab_size + 1), repeat=length)))


def all_masks(length: int) -> Tensor:
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


class Posterior(WithLogits):
    """The exact conditionals P(x_0^n | x_t) of a distribution, as logits log(V P).

    With one schedule per token they depend on the time: a mask is more likely to hide a token that is masked early.
    """

    def __init__(self, joint: Tensor, schedule: PerTokenSchedule | None = None) -> None:
        self.source, self.schedule = Source(joint, joint.dim()), schedule

    @torch.no_grad()
    def __call__(self, tokens: Tensor, t: Tensor, class_labels: Tensor | None) -> Tensor:  # noqa: ARG002
        """Return logits (B, L, V) at x_t (B, L) and times (B,); those of a context that never occurs are all 0."""
        weights = self.likelihood(tokens, t) * self.source.probabilities[:, None]
        one_hot = functional.one_hot(self.source.sequences, self.source.vocab_size).double()
        rows = torch.einsum("bsl,slv->blv", weights, one_hot)
        total = rows.sum(dim=2, keepdim=True)
        return torch.where(total > 0, self.source.vocab_size * rows / total, 1).log()

    def likelihood(self, tokens: Tensor, t: Tensor) -> Tensor:
        """Return the probability of what a position sees of x_t (B, L) given each sequence, up to a factor, (B, S, L).

        Every position sees all of x_t.
        """
        sequences = self.source.sequences
        is_masked = (tokens == self.source.vocab_size)[:, None]
        likelihood = (is_masked | (tokens[:, None] == sequences)).all(dim=2, keepdim=True).double()
        if self.schedule is not None:
            mask_prob = self.schedule.one_minus_alpha(t)[:, sequences]
            likelihood *= torch.where(is_masked, mask_prob, 1).prod(dim=2, keepdim=True)
        return likelihood.expand(-1, *sequences.shape)


class CausalPosterior(Posterior):
    """The best causal denoiser for an objective: P(x_0^n | its inputs up to position n), as logits log(V P).

    The inputs are those that the objective makes of each sequence, so it needs no convention about how they are
    shifted, and an objective that shows the denoiser its target has a cost of 0.
    """

    def __init__(self, joint: Tensor, objective: Objective) -> None:
        super().__init__(joint)
        recorder = Recorder(random_table(len(joint), joint.dim(), seed=0, is_causal=True))
        with torch.no_grad():
            u = torch.zeros(self.source.sequences.shape, dtype=torch.float64)
            objective.checked_elbo(recorder, self.source.sequences, u[:, 0], u)
        self.inputs = recorder.tokens

    def likelihood(self, tokens: Tensor, t: Tensor) -> Tensor:  # noqa: ARG002
        """Return 1 for the sequences whose inputs up to a position are those of `tokens` (B, L), else 0: (B, S, L)."""
        return (tokens[:, None] == self.inputs).cumprod(dim=2)


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


@dataclass(frozen=True)
class Mean:
    """The mean of `elbo` over times and masks, for S sequences, in nats."""

    totals: Tensor
    """Independent estimates (R, S), or the results of quadratures, best first."""
    boundary: Tensor
    """Reconstruction and prior, (S,)."""
    is_sampled: bool

    def over(self, probabilities: Tensor) -> Estimate:
        """Return the mean over sequences of these probabilities (S,)."""
        values = self.totals @ probabilities
        if self.is_sampled:
            return Estimate(values.mean().item(), values.std().item() / math.sqrt(len(values)))
        return Estimate(values[0].item(), (values[0] - values[-1]).abs().item())


@torch.no_grad()
def mean_elbo(objective: Objective, denoiser: Denoiser, sequences: Tensor) -> Mean:
    """Return the mean of `elbo` for sequences (S, L): enumerated where that is exact, sampled otherwise."""
    enumeration = find_enumeration(objective, sequences.shape[1])
    if enumeration is None:
        return _sample_elbo(objective, denoiser, sequences)
    enumerations = (
        [enumeration] if enumeration.steps else [Enumeration(enumeration.mask_kind, None, nodes) for nodes in NODES]
    )
    results = [_enumerate_elbo(objective, denoiser, sequences, one) for one in enumerations]
    return Mean(torch.stack([totals for totals, _ in results]), results[0][1], is_sampled=False)


def exact_mean(objective: Objective, source: Source) -> Mean:
    """Return the mean of `elbo` for the sequences of a source, with its exact conditionals as the denoiser."""
    return mean_elbo(objective, exact_denoiser(objective, source.joint), source.sequences)


MaskKind = Literal["none", "independent", "ranked"]


@dataclass(frozen=True)
class Enumeration:
    """The times and masks of an objective whose uniforms decide only the mask, and, with `steps`, the step of t."""

    mask_kind: MaskKind
    """Kind of masking: none, where u >= alpha, or by the order of u."""
    steps: int | None
    nodes: int = NODES[0]

    def times(self) -> tuple[Tensor, Tensor]:
        """Return times (T,) and their weights: the middles of the steps, or nodes of Gauss-Legendre quadrature."""
        if self.steps:
            times = (torch.arange(self.steps) + 0.5).double() / self.steps
            return times, torch.full_like(times, 1 / self.steps)
        nodes, weights = (torch.from_numpy(array) for array in np.polynomial.legendre.leggauss(self.nodes))
        times, density = smooth_step((nodes + 1) / 2)
        return times, weights / 2 * density


def smooth_step(v: Tensor) -> tuple[Tensor, Tensor]:
    """Return t = 3 v^2 - 2 v^3 and dt/dv, for v in [0, 1].

    In v, weights of 1 / t and 1 / (1 - t) have a finite variance, and square roots of t are smooth.
    """
    return (v**2 * (3 - 2 * v)).clamp(max=LAST), 6 * v * (1 - v)


@torch.no_grad()
def find_enumeration(objective: Objective, length: int) -> Enumeration | None:
    """Probe what decides the value of `elbo`; return None if it is more than masks and steps of a known kind.

    The denoiser is random, which makes every mask and every time another value.
    """
    generator = torch.Generator().manual_seed(0)
    vocab_size = objective.vocab_size
    x0 = torch.randint(vocab_size, (PROBES, length), generator=generator)
    t, u = (torch.rand(PROBES, *size, generator=generator, dtype=torch.float64) for size in ((), (length,)))
    denoiser = Recorder(random_table(vocab_size, length, seed=0, is_causal=objective.is_causal))
    totals = objective.checked_elbo(denoiser, x0, t, u).total
    alpha = _alpha(objective, denoiser.times, x0)

    def is_unchanged(times: Tensor, u: Tensor) -> bool:
        return torch.allclose(objective.checked_elbo(denoiser, x0, times, u).total, totals, rtol=SAME)

    counts = [1, length, getattr(getattr(objective, "discrete_time", None), "timesteps", 1)]
    steps = next((count for count in counts if is_unchanged(((t * count).floor() + 0.5) / count, u)), None)
    u_of_kind: dict[MaskKind, Tensor] = {
        "none": torch.zeros_like(u),
        "independent": (u >= alpha) * LAST,
        "ranked": u.argsort(dim=1).argsort(dim=1) / length,
    }
    return next((Enumeration(kind, steps) for kind, u in u_of_kind.items() if is_unchanged(t, u)), None)


def _alpha(objective: Objective, t: Tensor, x0: Tensor) -> Tensor:
    """Return the probability (D, L) that tokens x0 (D, L) are unmasked at times (D,); NaN without a schedule."""
    schedule: Any = getattr(objective, "schedule", None)
    if schedule is None:
        return torch.full(x0.shape, math.nan, dtype=torch.float64)
    alpha: Tensor = schedule.alpha(t)
    return alpha.gather(1, x0) if alpha.dim() == 2 else alpha[:, None].expand(x0.shape)


def _enumerate_elbo(
    objective: Objective, denoiser: Denoiser, sequences: Tensor, enumeration: Enumeration
) -> tuple[Tensor, Tensor]:
    """Return the sum of `elbo` over all times and masks, weighted, and of its boundary terms, each (S,)."""
    length = sequences.shape[1]
    times, weights = enumeration.times()
    if enumeration.mask_kind == "none":
        u = torch.zeros(1, length)
    elif enumeration.mask_kind == "independent":
        u = all_masks(length) * LAST
    else:
        u = torch.tensor(list(itertools.permutations(range(length)))) / length
    t_D, weight_D = (column.repeat_interleave(len(u)) for column in (times, weights))
    u_D = u.double().repeat(len(times), 1)
    recorder = Recorder(denoiser)

    def sums(x: Tensor) -> Tensor:
        x0, t, u = x.repeat_interleave(len(t_D), dim=0), t_D.repeat(len(x)), u_D.repeat(len(x), 1)
        elbo = objective.checked_elbo(recorder, x0, t, u)
        if enumeration.mask_kind == "independent":
            alpha = _alpha(objective, recorder.times, x0)
            chances = torch.where(u > 0, 1 - alpha, alpha).prod(dim=1)
        else:
            chances = torch.full_like(t, len(times) / len(t_D))
        terms = torch.stack([elbo.total, elbo.reconstruction + elbo.prior])
        return (weight_D.repeat(len(x)) * chances * terms).view(2, len(x), -1).sum(dim=2)

    count = 1 + len(sequences) * len(t_D) // MAX_ROWS
    totals, boundary = torch.cat([sums(x) for x in sequences.chunk(count)], dim=1)
    return totals, boundary


def _sample_elbo(objective: Objective, denoiser: Denoiser, sequences: Tensor) -> Mean:
    """Return means over scrambled Sobol points, with more of them where a time or a uniform is near 0 or 1."""
    num_points = 2 ** int(math.log2(SAMPLED_ROWS / len(sequences)))  # Sobol points come in powers of 2.
    x0 = sequences.repeat_interleave(num_points, dim=0)
    means = []
    for seed in range(REPLICATES):
        engine = SobolEngine(1 + sequences.shape[1], scramble=True, seed=seed)  # type: ignore[no-untyped-call]
        points = engine.draw(num_points, dtype=torch.float64).clamp(1 - LAST, LAST).repeat(len(sequences), 1)
        u, densities = smooth_step(points)
        elbo = objective.checked_elbo(denoiser, x0, u[:, 0], u[:, 1:])
        terms = torch.stack([elbo.total, elbo.reconstruction + elbo.prior])
        means.append((densities.prod(dim=1) * terms).view(2, len(sequences), -1).mean(dim=2))
    totals, boundary = torch.stack(means, dim=1)
    return Mean(totals, boundary.mean(dim=0), is_sampled=True)
