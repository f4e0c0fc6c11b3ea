r"""Monte Carlo estimators of a bound: where they spend their network calls, and their control variates.

Every estimator is stratified: q in [0, 1) decides the time or the number of masks, each of H equal strata of q has R
draws, which are independent, and

    estimate = 1/H sum_h mean_r y_hr,    variance = 1/H^2 sum_h var_r(y_hr) / R

With R >= 2 the variance is unbiased if no draw depends on another. Control variates here take their coefficients from
other draws; each then keeps its expectation, and the dependence is weak (the tests state the coverage).

Shapes: B examples of a batch, N examples of the data set, D draws, L length, H strata, R draws each, T timesteps,
V vocabulary.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.special import xlog1py, xlogy

from mdpipe.diffusion.denoiser import Denoiser
from mdpipe.diffusion.objectives.base import ELBO, Objective
from mdpipe.diffusion.objectives.baselines import AnyOrder
from mdpipe.diffusion.objectives.genmd4 import GenMD4
from mdpipe.diffusion.objectives.md4 import AbsorbingObjective, mask_exactly_k, masked_token_losses

EstimatorName = Literal["exact", "exact_counts", "stratified_times", "independent_times"]
Array = NDArray[np.float64]

EDGES = (0, 0.014, 0.035, 0.065, 0.105, 0.15, 0.205, 0.27, 0.34, 0.42, 0.505, 0.595, 0.68, 0.77, 0.86, 0.95, 0.992, 1)
"""Quantiles of the share v of masked tokens, which are dense where the cost varies most (Neyman allocation): with few
masks, because their mean is noisy, and where hardly any token is left. Measured on the default suite, as a compromise
of text and images: text needs the first ones most, images the last ones."""
PRIOR_COUNT = 10
"""Weight of the shorter context in an interpolated n-gram."""
TOKEN_PRIOR_COUNT = 1
"""Draws of the value 0 by which a token's mean over the other draws is shrunk. From 0.5 to 2 it hardly matters."""
SMOOTHNESS = 0.3
"""Weight of the curve's squared second differences against the squared residuals of the draws. From 0.01 to 1, the
variance changes by about a tenth."""
MAX_FITTED = 2**17
"""Draws that a curve is fitted to."""
BISECTIONS = 30
"""Halvings of an interval within [0, 1], down to 1e-9: the time is an input of the denoiser only."""


def estimator_of(objective: Objective, name: str) -> EstimatorName:
    """Return the estimator that an objective is evaluated by.

    Exact counts need a bound of a known form, so a subclass that overrides `elbo` has its times stratified.
    """
    if objective.is_exact:
        return "exact"
    known = (AbsorbingObjective.elbo, AnyOrder.elbo, GenMD4.elbo)
    if name == "exact_counts" and type(objective).elbo not in known:
        return "stratified_times"
    return cast("EstimatorName", name)


def num_strata(estimator: EstimatorName, num_draws: int) -> int:
    """Return H: as many strata as have two draws each, or one."""
    return 1 if estimator in ("exact", "independent_times") else num_draws // 2


def mask_share(q: Array) -> tuple[Array, Array]:
    """Return the quantiles v of the shares of masks at q, linear between EDGES, and dv/dq; each has the shape of q."""
    index = np.minimum((q * (len(EDGES) - 1)).astype(np.int64), len(EDGES) - 2)
    slope = np.diff(EDGES)[index] * (len(EDGES) - 1)
    return np.array(EDGES)[index] + slope * (q - index / (len(EDGES) - 1)), slope


class MaskCounts:
    r"""The diffusion part as a sum over the number n of masked positions, of L.

        diffusion = sum_n weight_n E[mean over S of the token loss at x_S and t],  S a uniform set of n positions

    With m = 1 - alpha(t) and Bin(n; L, m) the probability of n masks, integrating m^-1 Bin(n; L, m) n over m gives

        weight_n = P(Bin(L, m(1)) >= n) - P(Bin(L, m(0)) >= n),  m | n ~ Beta(n, L - n + 1) on [m(0), m(1)]

    in continuous time. In T steps, p(i | n) is proportional to (m_i - m_(i-1)) / m_i Bin(n; L, m_i), and its sum over i
    is weight_n / n. For any order, weight_n = 1 and t = n / L.

    Args:
        objective: an `AbsorbingObjective` or `AnyOrder`.
        length: L.
        device: of the results.
    """

    def __init__(self, objective: AbsorbingObjective | AnyOrder, length: int, device: torch.device) -> None:
        self._objective = objective
        self._length = length
        self._n = torch.arange(length + 1, dtype=torch.float64, device=device)
        self._log_choose = (
            torch.lgamma(self._n[-1] + 1) - torch.lgamma(self._n + 1) - torch.lgamma(length - self._n + 1)
        )
        self.weights = self._weights()
        """weight_1 to weight_L, (L,)."""
        self.total = self.weights.sum().item()
        self._cumulative = self.weights.cumsum(0) / self.total

    def count(self, v: Tensor) -> Tensor:
        """Return n (B,) int64 for v (B,) uniform on [0, 1): distributed as the weights, increasing in v."""
        return 1 + torch.searchsorted(self._cumulative, v.contiguous(), right=True).clamp(max=self._length - 1)

    def time(self, n: Tensor, u: Tensor) -> Tensor:
        """Return t | n (B,) for n (B,) and u (B,) uniform on [0, 1), by inverting its distribution function."""
        if isinstance(self._objective, AnyOrder):
            return n / self._length
        if self._objective.discrete_time is not None:
            m, steps = self._steps(self._objective.discrete_time.times)
            logits = steps.log() + xlogy(n[:, None], m) + xlog1py((self._length - n)[:, None], -m)
            index = torch.searchsorted(logits.softmax(dim=1).cumsum(dim=1), u[:, None].contiguous()).squeeze(1)
            times: Tensor = self._objective.discrete_time.times[1 + index.clamp(max=len(m) - 1)]
            return times
        schedule = self._objective.schedule
        low, high = schedule.one_minus_alpha(torch.stack([torch.zeros_like(u), torch.ones_like(u)]))
        first, last = self._at_least(n, low), self._at_least(n, high)
        target = first + u * (last - first)
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            is_below = self._at_least(n, middle) < target
            low, high = torch.where(is_below, middle, low), torch.where(is_below, high, middle)
        t: Tensor = schedule.inverse(1 - high)
        return t

    def _weights(self) -> Tensor:
        n = self._n[1:]
        if isinstance(self._objective, AnyOrder):
            return torch.ones_like(n)
        if self._objective.discrete_time is not None:
            m, steps = self._steps(self._objective.discrete_time.times)
            terms = (step * self._binomial(mask_prob)[1:] for mask_prob, step in zip(m, steps, strict=True))
            return n * sum(terms, torch.zeros_like(n))
        ends = self._objective.schedule.one_minus_alpha(self._n.new_tensor([0.0, 1.0]))
        first, last = (self._binomial(m).flip(0).cumsum(0).flip(0)[1:] for m in ends)
        return last - first

    def _steps(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """Return m_i and (m_i - m_(i-1)) / m_i, each (T,)."""
        m = self._objective.schedule.one_minus_alpha(times.to(self._n.device))
        return m[1:], m.diff() / m[1:]

    def _binomial(self, m: Tensor) -> Tensor:
        """Return Bin(n; L, m) for n = 0 to L, (..., L + 1), for m (..., 1) or ()."""
        log_binomial: Tensor = self._log_choose + xlogy(self._n, m) + xlog1py(self._length - self._n, -m)
        return log_binomial.exp()

    def _at_least(self, n: Tensor, m: Tensor) -> Tensor:
        """Return P(Bin(L, m) >= n), (B,), for n (B,) and m (B,)."""
        return torch.where(self._n >= n[:, None], self._binomial(m[:, None]), 0).sum(dim=1)


@dataclass(frozen=True)
class Masks:
    """The masks of a batch, their distribution, and the losses of the masked tokens."""

    is_masked: Tensor
    """(B, L) bool."""
    mask_prob: Tensor
    """Probability that a token is masked, (B, L) or (B, 1)."""
    neighbor_prob: Tensor
    """Probability that a token is masked, given that a neighbor is, with a 1 outside at both ends, (B, L + 2)."""
    both_prob: Tensor
    """Probability that both neighbors of a masked token are masked, (B, L)."""
    weight: Tensor
    """The diffusion part is the sum of weight times loss, (B, L) or (B, 1)."""
    loss: Tensor
    """0 where not masked, (B, L)."""

    @property
    def centered_weight(self) -> Tensor:
        """Return the weight of each masked token less its expectation, (B, L)."""
        return self.weight * (self.is_masked.double() - self.mask_prob)

    @property
    def expected_weight(self) -> Tensor:
        """Return the expected weight of all masked tokens, (B,)."""
        return (self.weight * self.mask_prob).expand_as(self.loss).sum(dim=1)


Draw = Callable[[Tensor, Tensor, Tensor | None], Masks]
"""From x_0 (B, L), uniforms (B, 2 + L), the first of them v, and class labels (B,)."""


def exact_counts(objective: Objective, model: Denoiser) -> Draw:
    """Return the draws of exact counts, of `MaskCounts` or, where tokens differ in their schedules, of GenMD4."""
    if isinstance(objective, GenMD4):
        return _at_least_one_mask(objective, model)
    counted = cast("AbsorbingObjective | AnyOrder", objective)
    cache: dict[int, MaskCounts] = {}

    def draw(x0: Tensor, u: Tensor, class_labels: Tensor | None) -> Masks:
        length = x0.shape[1]
        counts = cache.setdefault(length, cache.get(length) or MaskCounts(counted, length, x0.device))
        n = counts.count(u[:, 0])
        # The largest uniforms are masked, as in `q_sample`: all models then have similar masks.
        is_masked = mask_exactly_k(n, 1 - u[:, 2:])
        x_t = torch.where(is_masked, counted.mask_id, x0)
        loss = masked_token_losses(counted, model, x_t, counts.time(n, u[:, 1]), class_labels, x0)
        n = n[:, None].double()
        neighbor_prob = ((n - 1) / max(length - 1, 1)).expand(-1, length + 2).clone()
        neighbor_prob[:, [0, -1]] = 1
        both_prob = neighbor_prob[:, :-2] * neighbor_prob[:, 2:]
        both_prob[:, 1:-1] *= (n - 2).clamp(min=0) / (n - 1).clamp(min=1) * (length - 1) / max(length - 2, 1)
        return Masks(is_masked, n / length, neighbor_prob, both_prob, counts.total / n, loss)

    return draw


def _at_least_one_mask(objective: GenMD4, model: Denoiser) -> Draw:
    """Return draws of GenMD4's bound from masks of at least one token.

    Its weight 1 / t would make the rare masks at times near 0 expensive, and the error far from normal. With m_i the
    probabilities of masks at time t, which are independent, at least one token is masked with the probability
    p = 1 - prod_i (1 - m_i), and none costs nothing. Under that condition, token i is masked with the probability
    m_i / p, and is the first one with (1 - m_1) ... (1 - m_(i-1)) m_i / p; those after the first are independent.
    """

    def draw(x0: Tensor, u: Tensor, class_labels: Tensor | None) -> Masks:
        s, t, weight = objective.interval(u[:, 0])
        w = objective.schedule.w[x0]
        m = objective.schedule.log_one_minus_alpha(w, t[:, None]).exp()
        any_up_to = -torch.expm1(torch.log1p(-m).cumsum(dim=1))
        p = any_up_to[:, -1:]
        first = torch.searchsorted(any_up_to, u[:, 1:2] * p, right=True).clamp(max=x0.shape[1] - 1)
        position = torch.arange(x0.shape[1], device=x0.device)
        is_masked = (position == first) | ((position > first) & (u[:, 2:] >= 1 - m))
        x_t = torch.where(is_masked, objective.mask_id, x0)
        # The losses of tokens with different rates are comparable after division by the rate.
        rate = w if s is None else 1 - (s / t)[:, None] ** w
        loss = objective.masked_losses(model, x_t, s, t, class_labels, x0) / rate
        neighbor_prob = functional.pad(m, (1, 1), value=1)
        weight = p * rate * (weight[:, None] if isinstance(weight, Tensor) else weight)
        return Masks(is_masked, m / p, neighbor_prob, neighbor_prob[:, :-2] * neighbor_prob[:, 2:], weight, loss)

    return draw


def boundary_terms(objective: Objective, x0: Tensor) -> ELBO:
    """Return the bound of x_0 (B, L) without its diffusion part, for an objective of `exact_counts`."""
    zero = torch.zeros(len(x0), dtype=torch.float64, device=x0.device)
    if isinstance(objective, GenMD4):
        return objective.add_boundary_terms(zero, x0)
    if isinstance(objective, AbsorbingObjective):
        return objective.add_boundary_terms(zero, x0.shape[1])
    return ELBO(zero, zero, zero)


def neighbor_surprisal(tokens: NDArray[np.int64], vocab_size: int) -> Array:
    """Return -log p of tokens (B, L) given no neighbor, the left one, the right one or both, (4, B, L), in nats.

    p is an interpolated n-gram of counts in the same tokens, without the one that it is the surprisal of. It is a
    function of the data only, so that any p leaves the estimate unbiased.
    """

    def others(key: NDArray[np.int64]) -> NDArray[np.int64]:
        _, inverse, counts = np.unique(key, return_inverse=True, return_counts=True)
        return (counts[inverse] - 1).reshape(key.shape)

    p = np.tile((others(tokens) + 1) / (tokens.size - 1 + vocab_size), (4, 1, 1))
    left, right = tokens[:, :-1], tokens[:, 1:]
    pair = others(left * vocab_size + right)
    p[1, :, 1:] = (pair + PRIOR_COUNT * p[0, :, 1:]) / (others(left) + PRIOR_COUNT)
    p[2, :, :-1] = (pair + PRIOR_COUNT * p[0, :, :-1]) / (others(right) + PRIOR_COUNT)
    around, middle = tokens[:, :-2] * vocab_size + tokens[:, 2:], slice(1, -1)
    prior = np.minimum(p[1] * p[2] / p[0], 1)[:, middle]
    triple = others(around * vocab_size + tokens[:, middle])
    p[3, :, middle] = (triple + PRIOR_COUNT * prior) / (others(around) + PRIOR_COUNT)
    return -np.log(p)


def control_by_neighbors(masks: Masks, surprisal: Tensor) -> tuple[Tensor, Tensor]:
    """Return a control variate (B,), the weighted surprisal (4, B, L) of masked tokens given their unmasked neighbors.

    Its expectation is subtracted. The second result is the surprisal of each token, (B, L).
    """
    is_visible = ~functional.pad(masks.is_masked, (1, 1), value=True)
    state = is_visible[:, :-2] + 2 * is_visible[:, 2:]
    given = surprisal.gather(0, state[None])[0]
    left, right, both = masks.neighbor_prob[:, :-2], masks.neighbor_prob[:, 2:], masks.both_prob
    probs = torch.stack([both, right - both, left - both, 1 - left - right + both])
    expected = masks.mask_prob * (probs * surprisal).sum(dim=0)
    return (masks.weight * (torch.where(masks.is_masked, given, 0) - expected)).sum(dim=1), given


def controls_by_other_draws(draws: Sequence[Masks], values: Sequence[Tensor]) -> Tensor:
    r"""Return a control variate for each draw, (D, B): tokens that are hard in the other draws are hard in this one.

        control = sum_i weight_i a_i (1[i masked] - P(i masked))

    has the expectation 0 because a_i, the mean over the other draws of token i's value where it is masked, less the
    mean of all that are masked with it, does not depend on this draw.

    Args:
        draws: of one batch.
        values: of each draw, (B, L).
    """
    residuals = []
    for masks, value in zip(draws, values, strict=True):
        masked = torch.where(masks.is_masked, value, 0)
        mean = masked.sum(dim=1, keepdim=True) / masks.is_masked.sum(dim=1, keepdim=True)
        residuals.append(torch.where(masks.is_masked, masked - mean, 0))
    sums = torch.stack(residuals).sum(dim=0)
    counts = torch.stack([masks.is_masked for masks in draws]).sum(dim=0) + TOKEN_PRIOR_COUNT
    return torch.stack(
        [
            ((sums - residual) / (counts - masks.is_masked.long()) * masks.centered_weight).sum(dim=1)
            for masks, residual in zip(draws, residuals, strict=True)
        ]
    )


def diffusion_and_controls(draws: Sequence[Masks], surprisal: Tensor) -> Tensor:
    """Return the diffusion part of each draw, its control variates, and the excess of weight, (5, D, B).

    The controls are by neighbors, by the losses of other draws, and by their surprisals given neighbors. The excess of
    the weight of all masked tokens over its expectation is relative to it.

    Args:
        draws: of one batch.
        surprisal: (4, B, L), of `neighbor_surprisal`.
    """
    diffusion = torch.stack([(masks.weight * masks.loss).sum(dim=1) for masks in draws])
    neighbors, given = zip(*(control_by_neighbors(masks, surprisal) for masks in draws), strict=True)
    by_loss, by_surprisal = (controls_by_other_draws(draws, v) for v in ([masks.loss for masks in draws], given))
    excess = torch.stack([masks.centered_weight.sum(dim=1) / masks.expected_weight for masks in draws])
    return torch.stack([diffusion.double(), torch.stack(neighbors), by_loss, by_surprisal, excess])


def adjust_by_curve(y: Array, controls: Array, excess: Array, q: Array, strata: int) -> Array:
    r"""Subtract the cost that is expected of a draw, and add the expectation of what was subtracted.

        predicted(v) = curve(v) + level
        (y - sum_c coefficient_c control_c - predicted(v) (1 + excess)) dv/dq + H int_stratum predicted dv

    Curve and coefficients are fitted to the other half of the examples, since the cost depends on the share of masks in
    much the same way in all of them; the level is the mean distance of the example's other draws from the curve. None
    of them depends on the draw, so that no bias arises.

    Args:
        y: cost per token of each draw, (N, D); draw d is in stratum d mod H.
        controls: control variates per token, (C, N, D).
        excess: relative excess of the masked tokens' weight, (N, D).
        q: positions of the draws, (N, D).
        strata: H.

    Returns:
        (N, D).
    """
    v, slope = mask_share(q)
    edges, _ = mask_share(np.linspace(0, 1, strata + 1))
    stratum = np.arange(y.shape[1]) % strata
    adjusted = np.empty_like(y)
    for fold in (0, 1):
        mine = slice(fold, None, 2)
        others = np.arange(1 - fold, len(y), 2)[: MAX_FITTED // y.shape[1]]
        curve, coefficients = _fit(y[others], controls[:, others], v[others], slope[others])
        predicted = np.interp(v[mine], EDGES, curve)
        distance, weight = slope[mine] * (y[mine] - predicted), slope[mine]
        level = (distance.sum(axis=1, keepdims=True) - distance) / (weight.sum(axis=1, keepdims=True) - weight)
        points = np.union1d(EDGES, edges)
        values = np.interp(points, EDGES, curve)
        integral = np.append(0, np.cumsum((values[1:] + values[:-1]) / 2 * np.diff(points)))
        expected = np.diff(integral[np.searchsorted(points, edges)])[stratum] + level * np.diff(edges)[stratum]
        controlled = y[mine] - np.tensordot(coefficients, controls[:, mine], axes=1)
        adjusted[mine] = slope[mine] * (controlled - (predicted + level) * (1 + excess[mine])) + strata * expected
    return adjusted


def _fit(y: Array, controls: Array, v: Array, slope: Array) -> tuple[Array, Array]:
    """Return a smooth curve at EDGES and the coefficients of the controls (C,), by least squares.

    A draw weighs as in the estimate. Each example has a separate level, which is eliminated by subtracting its means.
    """

    def mean(values: Array) -> Array:
        means: Array = np.einsum("ij,ij...->i...", slope / slope.sum(axis=1, keepdims=True), values)
        return means

    hats = np.stack([np.interp(v, EDGES, unit) for unit in np.eye(len(EDGES))], axis=2)
    design = np.concatenate([hats, np.moveaxis(controls, 0, 2)], axis=2)
    levels, design_means = mean(y), mean(design)
    rows = (slope[..., None] * (design - design_means[:, None])).reshape(-1, design.shape[2])
    bends = np.zeros((len(EDGES) - 2, design.shape[2]))
    bends[:, : len(EDGES)] = math.sqrt(SMOOTHNESS) * np.diff(np.eye(len(EDGES)), 2, axis=0)
    target = np.append((slope * (y - levels[:, None])).ravel(), np.zeros(len(bends)))
    solution = np.linalg.lstsq(np.concatenate([rows, bends]), target)[0]
    level = (levels - design_means @ solution).mean() if levels.size else 0
    return solution[: len(EDGES)] + level, solution[len(EDGES) :]
