r"""Monte Carlo estimators of a bound: where they spend their network calls.

Every estimator is stratified: q in [0, 1) decides the time or the number of masks, each of H equal strata of q has R
samples, and

    estimate = 1/H sum_h mean_r y_hr,    variance = 1/H^2 sum_h var_r(y_hr) / R

which is unbiased for independent samples. `control_variates` predict a sample from the others, which leaves its
expectation as it is; `adjust_by_curve` estimates what the covariances of samples add to the variance.

Shapes: B examples of a batch, L length, T timesteps, S states of a token's neighbors.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
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
"""Quantiles of the masked fraction v, which are dense where the cost varies most (Neyman allocation): with few
masks, because their mean is noisy, and where hardly any token is left. Measured on the default suite, as a compromise
of text and images: text needs the first ones most, images the last ones."""
NEIGHBORS = (-1, 1, -2, 2)
"""Distances to the neighbors of a token. Their state is the sum of 2^k over those unmasked; outside, none is."""
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


def num_strata(estimator: EstimatorName, num_mc_samples: int) -> int:
    """Return H: as many strata as have two samples each, or one."""
    return 1 if estimator in ("exact", "independent_times") else num_mc_samples // 2


def mask_fraction(q: Array) -> tuple[Array, Array]:
    """Return the quantiles v of the masked fraction at q, linear between EDGES, and dv/dq; each has the shape of q."""
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
        objective: An `AbsorbingObjective` or `AnyOrder`.
        length: L.
        device: Device of the results.
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
    state_prob: Callable[[], Tensor]
    """Return the probability of each state of the neighbors of a masked token, (S, B, L)."""
    weight: Tensor
    """The diffusion part is the sum of weight times loss, (B, L) or (B, 1)."""
    loss: Tensor
    """0 where not masked, (B, L)."""

    @property
    def states(self) -> Tensor:
        """Return the states of all tokens' neighbors, (B, L) int64."""
        return sum(
            (2**k * (~shifted).long() for k, shifted in enumerate(neighbors(self.is_masked, True))),
            torch.zeros_like(self.is_masked, dtype=torch.int64),
        )

    @property
    def centered_weight(self) -> Tensor:
        """Return the weight of each masked token less its expectation, (B, L)."""
        return self.weight * (self.is_masked.double() - self.mask_prob)

    @property
    def expected_weight(self) -> Tensor:
        """Return the expected weight of all masked tokens, (B,)."""
        return (self.weight * self.mask_prob).expand_as(self.loss).sum(dim=1)


def neighbors(values: Tensor, outside: float) -> list[Tensor]:
    """Return the values (B, L) of each of the NEIGHBORS of every token."""
    reach, length = max(NEIGHBORS), values.shape[1]
    padded = functional.pad(values, (reach, reach), value=outside)
    return [padded[:, reach + distance : reach + distance + length] for distance in NEIGHBORS]


def unmasked_in_states(device: torch.device) -> Tensor:
    """Return whether each neighbor is unmasked in each state, (S, 4) bool."""
    bits = torch.arange(len(NEIGHBORS), device=device)
    return torch.arange(2 ** len(NEIGHBORS), device=device)[:, None].bitwise_right_shift(bits).bitwise_and(1).bool()


def independent_states(mask_prob: Tensor) -> Tensor:
    """Return the probabilities (S, B, L) of states where tokens are masked independently, by mask_prob (B, L)."""
    states = torch.ones(2 ** len(NEIGHBORS), *mask_prob.shape, dtype=mask_prob.dtype, device=mask_prob.device)
    for is_unmasked, prob in zip(unmasked_in_states(mask_prob.device).T, neighbors(mask_prob, 1), strict=True):
        states *= torch.where(is_unmasked[:, None, None], 1 - prob, prob)
    return states


def counted_states(n: Tensor, length: int) -> Tensor:
    """Return the probabilities (S, B, L) of states given that the token and n - 1 others, n (B,), of L are masked.

    With x_k = x (x - 1) ... (x - k + 1), a masked and b unmasked neighbors have (n - 1)_a (L - n)_b / (L - 1)_(a + b).
    """
    number, device = len(NEIGHBORS), n.device

    def falling(x: Tensor) -> Tensor:
        """Return x_0 to x_number for each x (B,)."""
        return functional.pad(
            (x[:, None] - torch.arange(number, device=device)).clamp(min=0).cumprod(1), (1, 0), value=1
        )

    sums = torch.arange(number + 1, device=device)[:, None] + torch.arange(number + 1, device=device)
    total = falling(torch.tensor([length - 1.0], dtype=torch.float64, device=device))[0].clamp(min=1)
    chance = falling(n - 1)[:, :, None] * falling(length - n)[:, None, :] / total[sums.clamp(max=number)]
    is_inside = torch.stack(neighbors(torch.ones(1, length, device=device), 0)).bool().transpose(0, 1)  # (1, 4, L)
    is_unmasked = unmasked_in_states(device)[:, :, None]
    unmasked = (is_unmasked & is_inside).sum(dim=1)
    index = (is_inside.sum(dim=1) - unmasked) * (number + 1) + unmasked
    impossible = (is_unmasked & ~is_inside).any(dim=1)
    return torch.where(impossible[:, None], 0, chance.flatten(1)[:, index].transpose(0, 1))


MaskSampler = Callable[[Tensor, Tensor, Tensor | None], Masks]
"""A sample of masks from x_0 (B, L), uniforms (B, 2 + L), the first of them v, and class labels (B,)."""


def exact_counts(objective: Objective, model: Denoiser) -> MaskSampler:
    """Return the sampler of exact counts, of `MaskCounts` or, where tokens differ in their schedules, of GenMD4."""
    if isinstance(objective, GenMD4):
        return at_least_one_mask(objective, model)
    counted = cast("AbsorbingObjective | AnyOrder", objective)
    cache: dict[int, MaskCounts] = {}

    def sample_masks(x0: Tensor, u: Tensor, class_labels: Tensor | None) -> Masks:
        length = x0.shape[1]
        counts = cache.setdefault(length, cache.get(length) or MaskCounts(counted, length, x0.device))
        n = counts.count(u[:, 0])
        # The largest uniforms are masked, as in `q_sample`: all models then have similar masks.
        is_masked = mask_exactly_k(n, 1 - u[:, 2:])
        x_t = torch.where(is_masked, counted.mask_id, x0)
        loss = masked_token_losses(counted, model, x_t, counts.time(n, u[:, 1]), class_labels, x0)
        n = n[:, None].double()
        return Masks(is_masked, n / length, partial(counted_states, n[:, 0], length), counts.total / n, loss)

    return sample_masks


def at_least_one_mask(objective: GenMD4, model: Denoiser) -> Callable[..., Masks]:
    """Return the sampler of GenMD4's bound from masks of at least one token, of those that are `targets` if given.

    Its weight 1 / t would make the rare masks at times near 0 expensive, and the error far from normal. With m_i the
    probabilities of masks at time t, which are independent, at least one token is masked with the probability
    p = 1 - prod_i (1 - m_i), and none costs nothing. Under that condition, token i is masked with the probability
    m_i / p, and is the first one with (1 - m_1) ... (1 - m_(i-1)) m_i / p; those after the first are independent.
    """

    def sample_masks(x0: Tensor, u: Tensor, class_labels: Tensor | None, targets: Tensor | None = None) -> Masks:
        s, t, weight = objective.interval(u[:, 0])
        w = objective.schedule.w[x0]
        m = objective.schedule.log_one_minus_alpha(w, t[:, None]).exp()
        if targets is not None:
            m = torch.where(targets, m, 0)
        any_up_to = -torch.expm1(torch.log1p(-m).cumsum(dim=1))
        p = any_up_to[:, -1:]
        first = torch.searchsorted(any_up_to, u[:, 1:2] * p, right=True).clamp(max=x0.shape[1] - 1)
        position = torch.arange(x0.shape[1], device=x0.device)
        is_masked = (position == first) | ((position > first) & (u[:, 2:] >= 1 - m))
        x_t = torch.where(is_masked, objective.mask_id, x0)
        # The losses of tokens with different rates are comparable after division by the rate.
        rate = w if s is None else 1 - (s / t)[:, None] ** w
        loss = objective.masked_losses(model, x_t, s, t, class_labels, x0) / rate
        weight = p * rate * (weight[:, None] if isinstance(weight, Tensor) else weight)
        return Masks(is_masked, m / p, partial(independent_states, m), weight, loss)

    return sample_masks


def boundary_terms(objective: Objective, x0: Tensor) -> ELBO:
    """Return the bound of x_0 (B, L) without its diffusion part, for an objective of `exact_counts`."""
    zero = torch.zeros(len(x0), dtype=torch.float64, device=x0.device)
    if isinstance(objective, GenMD4):
        return objective.add_boundary_terms(zero, x0)
    if isinstance(objective, AbsorbingObjective):
        return objective.add_boundary_terms(zero, x0.shape[1])
    return ELBO(zero, zero, zero)
