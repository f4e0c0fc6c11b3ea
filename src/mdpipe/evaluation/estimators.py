r"""Monte Carlo estimators of a bound: where they spend their network calls, and their control variates.

Every estimator is stratified over v in [0, 1), which decides the time or the number of masks; each stratum has the same
number of draws, which are independent. With w_h the width of stratum h and y_hr its draws,

    estimate = sum_h w_h mean_r y_hr,    variance = sum_h w_h^2 var_r(y_hr) / R

The variance is unbiased because a stratum has R >= 2 draws. With a single draw in each of twice as many strata it could
only be bounded, and the linear term below makes up for most of the difference (6 % of the error on text).

Shapes: B examples of a batch, N examples of the data set, L length, R draws per stratum, H strata, T timesteps.
"""

from collections.abc import Callable
from typing import Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.special import xlog1py, xlogy

from mdpipe.diffusion.denoiser import Denoiser
from mdpipe.diffusion.objectives.base import ELBO, Objective
from mdpipe.diffusion.objectives.baselines import AnyOrder
from mdpipe.diffusion.objectives.genmd4 import T_MIN, GenMD4
from mdpipe.diffusion.objectives.md4 import AbsorbingObjective, mask_exactly_k, masked_token_loss

EstimatorName = Literal["exact", "exact_counts", "stratified_times", "independent_times"]
Array = NDArray[np.float64]

EDGES = (0, 0.035, 0.09, 0.18, 0.31, 0.5, 0.8, 0.97, 1)
"""Edges of eight strata over the share of masked tokens, narrow where the cost varies most (Neyman allocation): with
few masks, because their mean is noisy, and where hardly any token is left. Measured on the default suite, as a
compromise of text and images: text needs the first edges most, images the last ones."""
SURPRISAL_COEFFICIENT = 0.9
"""Coefficient of the unigram surprisal. The best one is 0.8 to 1.0 in all strata, on text and on images."""
BISECTIONS = 30
"""Halvings of an interval within [0, 1], down to 1e-9: the time is an input of the denoiser only."""


def estimator_of(objective: Objective, name: str) -> EstimatorName:
    """Return the estimator that an objective is evaluated by.

    Exact counts need a bound of a known form, so a subclass with an `elbo` of its own has its times stratified.
    """
    if objective.is_exact:
        return "exact"
    known = (AbsorbingObjective.elbo, AnyOrder.elbo, GenMD4.elbo)
    if name == "exact_counts" and type(objective).elbo not in known:
        return "stratified_times"
    return cast("EstimatorName", name)


def strata_edges(estimator: EstimatorName, num_draws: int) -> Array:
    """Return the edges of the strata, (H + 1,), for this number of draws: two in each stratum, or all in one."""
    if estimator in ("exact", "independent_times"):
        return np.array([0.0, 1.0])
    quantiles = np.linspace(0, 1, num_draws // 2 + 1)
    if estimator == "stratified_times":
        return quantiles
    return np.interp(quantiles, np.linspace(0, 1, len(EDGES)), EDGES)


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


Draw = Callable[[Tensor, Tensor, Tensor, Tensor | None], tuple[ELBO, Tensor]]
"""From x_0 (B, L), its unigram surprisal (B, L), uniforms (B, 2 + L), the first of them v, and class labels: the parts
of the bound, and the relative excess (B,) of the weight of the masked tokens over its expectation."""


def exact_counts(objective: Objective, model: Denoiser) -> Draw:
    """Return the draws of exact counts, of `MaskCounts` or, where tokens differ in their schedules, of GenMD4."""
    if isinstance(objective, GenMD4):
        return _bernoulli_draws(objective, model)
    counted = cast("AbsorbingObjective | AnyOrder", objective)
    cache: dict[int, MaskCounts] = {}

    def draw(x0: Tensor, surprisal: Tensor, u: Tensor, class_labels: Tensor | None) -> tuple[ELBO, Tensor]:
        length = x0.shape[1]
        counts = cache.setdefault(length, cache.get(length) or MaskCounts(counted, length, x0.device))
        n = counts.count(u[:, 0])
        # The largest uniforms are masked, as in `q_sample`: all models then have similar masks.
        is_masked = mask_exactly_k(n, 1 - u[:, 2:])
        t = counts.time(n, u[:, 1])
        x_t = torch.where(is_masked, counted.mask_id, x0)
        mean_loss = masked_token_loss(counted, model, x_t, t, class_labels, x0) / n
        centered = surprisal - surprisal.mean(dim=1, keepdim=True)
        control = SURPRISAL_COEFFICIENT * torch.where(is_masked, centered, 0).sum(dim=1) / n
        diffusion = counts.total * (mean_loss - control)
        zero = torch.zeros_like(diffusion)
        if isinstance(counted, AnyOrder):
            return ELBO(zero, zero, diffusion), zero
        return counted.add_boundary_terms(diffusion, length), zero

    return draw


def _bernoulli_draws(objective: GenMD4, model: Denoiser) -> Draw:
    """Return draws of GenMD4's bound, with its masks' surprisal and number as control variates.

    A token i is masked with the probability m_i(t) and then weighs rate_i, w_i / t or T (1 - (s / t)^w_i), so that

        control = sum_i rate_i (s_i - mean s) (1[i masked] - m_i)
        excess = sum_i rate_i 1[i masked] / sum_i rate_i m_i - 1

    have the expectation 0 at each t.
    """

    def draw(x0: Tensor, surprisal: Tensor, u: Tensor, class_labels: Tensor | None) -> tuple[ELBO, Tensor]:
        v, u_masks = u[:, 0], u[:, 2:]
        elbo = objective.elbo(model, x0, v, u_masks, class_labels)
        w = objective.schedule.w[x0]
        if objective.discrete_time is None:
            t = T_MIN + (1 - T_MIN) * v
            rate = (1 - T_MIN) / t[:, None] * w
        else:
            s, t = objective.discrete_time.interval(v)
            rate = objective.discrete_time.timesteps * (1 - (s / t)[:, None] ** w)
        mask_prob = objective.schedule.log_one_minus_alpha(w, t[:, None]).exp()
        is_masked = u_masks >= 1 - mask_prob
        centered = surprisal - surprisal.mean(dim=1, keepdim=True)
        control = SURPRISAL_COEFFICIENT * (rate * centered * (is_masked.double() - mask_prob)).sum(dim=1)
        excess = (rate * is_masked).sum(dim=1) / (rate * mask_prob).sum(dim=1) - 1
        return ELBO(elbo.reconstruction, elbo.prior, elbo.diffusion - control), excess

    return draw


def plain_draws(objective: Objective, model: Denoiser) -> Draw:
    """Return draws of the objective's own bound at time v, without control variates."""

    def draw(x0: Tensor, _: Tensor, u: Tensor, class_labels: Tensor | None) -> tuple[ELBO, Tensor]:
        elbo = objective.elbo(model, x0, u[:, 0], u[:, 2:], class_labels)
        return elbo, torch.zeros_like(elbo.diffusion)

    return draw


def adjust_by_other_draws(y: Array, excess: Array, v: Array, edges: Array) -> Array:
    r"""Subtract control variates whose coefficients come from the other draw of each stratum, so that no bias arises.

        y_r - mean(y_r') excess_r - slope(y_r') (v_r - middle of the stratum)

    with means over the examples, since the cost depends on the share of masks in much the same way in all of them.

    Args:
        y: draws per token, (N, 2, H), like `excess` and `v`.
        excess: relative excess of the masked tokens' weight.
        v: positions.
        edges: of the strata, (H + 1,).

    Returns:
        (N, 2, H).
    """
    middles = (edges[1:] + edges[:-1]) / 2
    offset = v - middles
    means = y.mean(axis=0)
    if len(middles) > 1:
        slopes = np.gradient(means, middles, axis=1)
    else:
        slopes = ((y - means) * offset).mean(axis=0) * 12 / (edges[1] - edges[0]) ** 2  # The variance of v is known.
    adjusted: Array = y - means[::-1] * excess - slopes[::-1] * offset
    return adjusted
