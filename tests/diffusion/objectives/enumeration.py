"""Expectations without sampling: all masks, all steps, and quadrature over times that is exact up to rounding.

D[n] is the mean, over the sets of n masked positions, of the average cross entropy of a masked token.
Shapes: R draws, L positions, V vocabulary.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mdpipe.diffusion.objectives.base import Objective
from mdpipe.diffusion.objectives.baselines import AnyOrder
from mdpipe.diffusion.objectives.genmd4 import T_MIN, GenMD4
from mdpipe.diffusion.schedules.base import Schedule
from mdpipe.evaluation.enumerated import all_masks
from tests.diffusion.tables import Tabular

LAST = 1 - 2.0**-53
"""The largest uniform: its token is masked at any alpha but 1."""

NODES = 64
"""Times of a quadrature: the integrands of all schedules in these tests are exact with them to 1e-11."""


class Uninformed:
    """A network at initialization: all logits are 0."""

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size

    def __call__(self, tokens: Tensor, time: Tensor, class_labels: Tensor | None) -> Tensor:
        return torch.zeros(*tokens.shape, 1, dtype=torch.float64)

    def head(self, hidden: Tensor) -> Tensor:
        return hidden.expand(*hidden.shape[:-1], self.vocab_size)


def legendre(start: float, end: float, count: int) -> tuple[Tensor, Tensor]:
    """Return nodes and weights of Gauss-Legendre quadrature, exact for polynomials of degree below 2 count."""
    nodes, weights = (torch.from_numpy(array) for array in np.polynomial.legendre.leggauss(count))
    return start + (end - start) * (nodes + 1) / 2, weights * (end - start) / 2


@dataclass(frozen=True)
class Draws:
    """Arguments (R,) and (R, L) of `Objective.elbo`, each with its probability (R,), differentiable in exponents."""

    time: Tensor
    u: Tensor
    chance: Tensor


def every_draw(objective: Objective, tokens: Tensor) -> Draws:
    """Return all draws of the bound of tokens (L,); at each time, the probabilities of the masks sum to 1."""
    length = len(tokens)
    if objective.is_exact:
        return Draws(torch.zeros(1).double(), torch.zeros(1, 0).double(), torch.ones(1).double())
    if isinstance(objective, AnyOrder):
        orders = torch.tensor(list(itertools.permutations(range(length)))).double() / length
        time, weights = middles(length)
        return crossed(time, weights, orders, torch.full((length, len(orders)), 1 / len(orders), dtype=torch.float64))
    time, weights = every_time(objective)
    masked = all_masks(length)
    alpha_TL = unmasked_probs(objective, time, tokens)
    chances_TM = torch.where(masked, 1 - alpha_TL[:, None], alpha_TL[:, None]).prod(dim=2)
    return crossed(time, weights, masked * LAST, chances_TM)


def every_time(objective: Objective) -> tuple[Tensor, Tensor]:
    """Return uniform times and their weights: the middles of the steps, or quadrature nodes."""
    if getattr(objective, "discrete_time", None):
        return middles(objective.discrete_time.timesteps)
    if isinstance(objective, GenMD4):
        # In log t, where the powers of t are exponentials.
        log_times, weights = legendre(math.log(T_MIN), 0, NODES)
        time = log_times.exp()
        return (time - T_MIN) / (1 - T_MIN), weights * time / (1 - T_MIN)
    # In sqrt(t), where half-integer powers of t are polynomials.
    roots, weights = legendre(0, 1, NODES)
    return roots**2, weights * 2 * roots


def unmasked_probs(objective: Objective, time: Tensor, tokens: Tensor) -> Tensor:
    """Return the probability (T, L) that each of tokens (L,) is unmasked, for uniform times (T,)."""
    if getattr(objective, "discrete_time", None):
        _, time = objective.discrete_time.interval(time)
    elif isinstance(objective, GenMD4):
        time = T_MIN + (1 - T_MIN) * time
    alpha = objective.schedule.alpha(time)
    return alpha[:, tokens] if isinstance(objective, GenMD4) else alpha[:, None].expand(-1, len(tokens))


def middles(count: int) -> tuple[Tensor, Tensor]:
    return (torch.arange(count).double() + 0.5) / count, torch.full((count,), 1 / count, dtype=torch.float64)


def crossed(time: Tensor, weights: Tensor, u: Tensor, chances: Tensor) -> Draws:
    """Combine times (T,) and their weights with uniforms (M, L), whose probabilities (T, M) depend on the time."""
    return Draws(
        time.repeat_interleave(len(u)),
        u.double().repeat(len(time), 1),
        (weights[:, None] * chances).flatten(),
    )


def expectation(objective: Objective, denoiser, tokens: Tensor) -> Tensor:
    """Return the expectation of `objective.elbo` for tokens (L,), differentiable: its sum over all draws."""
    draws = every_draw(objective, tokens)
    bound = objective.elbo(denoiser, tokens.expand(len(draws.time), -1), draws.time, draws.u)
    return (draws.chance * bound.total).sum()


@torch.no_grad()
def average_entropies(denoiser: Tabular, tokens: Tensor) -> Tensor:
    """Return D[1] to D[L], (L,), directly from the table."""
    masked = all_masks(len(tokens))
    x_t = torch.where(masked, denoiser.vocab_size, tokens)
    logits = denoiser.head(denoiser(x_t, torch.zeros(len(masked)), None))
    entropies = -logits.log_softmax(dim=2)[:, torch.arange(len(tokens)), tokens]
    sizes = masked.sum(dim=1)
    averages = torch.where(masked, entropies, 0).sum(dim=1) / sizes
    return torch.stack([averages[sizes == size].mean() for size in range(1, len(tokens) + 1)])


def cost_at_rate(average: Tensor, rates: Tensor) -> Tensor:
    """Return c(p) = sum_n C(L-1, n-1) p^(n-1) (1-p)^(L-n) D[n], the cost of a masked token at mask probability p."""
    length = len(average)
    return sum(
        math.comb(length - 1, n - 1) * rates ** (n - 1) * (1 - rates) ** (length - n) * average[n - 1]
        for n in range(1, length + 1)
    )


def enumerated_bound(denoiser: Tabular, tokens: Tensor, schedule: Schedule) -> Tensor:
    """Return L int c(p) dp over the schedule's mask probabilities, plus log V per token masked beyond either end.

    c is a polynomial, so L nodes integrate it exactly.
    """
    length, (first, last) = len(tokens), schedule.one_minus_alpha(torch.tensor([0.0, 1.0]).double()).tolist()
    rates, weights = legendre(first, last, length)
    inside = (weights * cost_at_rate(average_entropies(denoiser, tokens), rates)).sum()
    return length * (inside + (first + 1 - last) * math.log(denoiser.vocab_size))
