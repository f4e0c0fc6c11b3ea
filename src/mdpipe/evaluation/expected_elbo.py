"""The mean of an objective's `elbo` over times and masks: enumerated where that is exact, sampled otherwise.

An objective may use its time and uniforms as it likes. A probe replaces random ones by the representatives that an
enumeration would use. Where no value changes, the mean is a sum over all masks, and over all steps or the nodes of a
quadrature over time. Otherwise it is a quasi-Monte Carlo estimate with a standard error.

Shapes: D draws of time and mask, S sequences, L length, R replicates, T times. All is in nats.
"""

import itertools
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from mdpipe.diffusion.denoiser import Denoiser
from mdpipe.diffusion.objectives.base import Objective
from mdpipe.evaluation.enumerated import Recorder, masks, random_table
from mdpipe.evaluation.estimate import Estimate

REPLICATES = 24
"""Independent scramblings of the quasi-Monte Carlo points, whose spread is the standard error."""
SAMPLED_ROWS = 2**15
"""Points of each, for all sequences together."""
NODES = (96, 64)
"""Quadrature nodes over time. The second number only serves to estimate the error of the first."""
PROBES = 4096
"""Random draws for which the shortcut of an enumeration must give the value of `elbo`."""
SAME = 1e-9
"""Relative difference of two values that is taken for rounding."""
MAX_ROWS = 2**17
"""Draws that the denoiser is given at a time."""
LAST = 1 - 2.0**-53
"""The largest uniform: its token is masked at any alpha but 1."""


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
    grid = find_grid(objective, sequences.shape[1])
    if grid is None:
        return _sampled(objective, denoiser, sequences)
    grids = [grid] if grid.steps else [Grid(grid.masks, None, nodes) for nodes in NODES]
    results = [_enumerated(objective, denoiser, sequences, one) for one in grids]
    return Mean(torch.stack([totals for totals, _ in results]), results[0][1], is_sampled=False)


@dataclass(frozen=True)
class Grid:
    """The draws of an objective whose uniforms decide only the mask, and, with `steps`, only the step that t is in."""

    masks: Literal["none", "independent", "ranked"]
    """Without masks; masked where u >= alpha; or masked by the order of u."""
    steps: int | None
    nodes: int = NODES[0]

    def times(self) -> tuple[Tensor, Tensor]:
        """Return times (T,) and their weights: the middles of the steps, or nodes of Gauss-Legendre quadrature."""
        if self.steps:
            return (torch.arange(self.steps) + 0.5).double() / self.steps, torch.full(
                (self.steps,), 1 / self.steps, dtype=torch.float64
            )
        nodes, weights = (torch.from_numpy(array) for array in np.polynomial.legendre.leggauss(self.nodes))
        times, density = smooth_step((nodes + 1) / 2)
        return times, weights / 2 * density


def smooth_step(v: Tensor) -> tuple[Tensor, Tensor]:
    """Return t = 3 v^2 - 2 v^3 and dt/dv, for v in [0, 1].

    In v, weights of 1 / t and 1 / (1 - t) have a finite variance, and square roots of t are smooth.
    """
    return (v**2 * (3 - 2 * v)).clamp(max=LAST), 6 * v * (1 - v)


@torch.no_grad()
def find_grid(objective: Objective, length: int) -> Grid | None:
    """Probe what decides the value of `elbo`; return None if it is more than masks and steps of a known kind.

    Random times and uniforms are replaced by the representatives that an enumeration would use. The shortcut is right
    if no value changes, with a random denoiser, which makes every mask and every time another value.
    """
    generator = torch.Generator().manual_seed(0)
    vocab_size = objective.vocab_size
    x0 = torch.randint(vocab_size, (PROBES, length), generator=generator)
    t, u = (torch.rand(PROBES, *size, generator=generator, dtype=torch.float64) for size in ((), (length,)))
    denoiser = Recorder(random_table(vocab_size, length, seed=0, is_causal=objective.is_causal))
    totals = objective.elbo(denoiser, x0, t, u).total
    alpha = _alpha(objective, denoiser.times, x0)

    def is_unchanged(times: Tensor, uniforms: Tensor) -> bool:
        return torch.allclose(objective.elbo(denoiser, x0, times, uniforms).total, totals, rtol=SAME)

    counts = [1, length, getattr(getattr(objective, "discrete_time", None), "timesteps", 1)]
    steps = next((count for count in counts if is_unchanged(((t * count).floor() + 0.5) / count, u)), None)
    if is_unchanged(t, torch.zeros_like(u)):
        return Grid("none", steps)
    if alpha is not None and is_unchanged(t, (u >= alpha) * LAST):
        return Grid("independent", steps)
    if is_unchanged(t, u.argsort(dim=1).argsort(dim=1) / length):
        return Grid("ranked", steps)
    return None


def _alpha(objective: Objective, t: Tensor, x0: Tensor) -> Tensor | None:
    """Return the probability (D, L) that tokens x0 (D, L) are unmasked at the denoiser's times (D,), or None."""
    schedule: Any = getattr(objective, "schedule", None)
    if schedule is None:
        return None
    alpha: Tensor = schedule.alpha(t)
    return alpha.gather(1, x0) if alpha.dim() == 2 else alpha[:, None].expand(x0.shape)


def _enumerated(objective: Objective, denoiser: Denoiser, sequences: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Return the sum of `elbo` over all times and masks of a grid, weighted, and of its boundary terms, each (S,)."""
    length = sequences.shape[1]
    times, weights = grid.times()
    if grid.masks == "none":
        u = torch.zeros(1, length)
    elif grid.masks == "independent":
        u = masks(length) * LAST
    else:
        u = torch.tensor(list(itertools.permutations(range(length)))) / length
    t_D, u_D, weight_D = (
        times.repeat_interleave(len(u)),
        u.double().repeat(len(times), 1),
        weights.repeat_interleave(len(u)),
    )
    recorder = Recorder(denoiser)

    def sums(x: Tensor) -> Tensor:
        x0, t, u = x.repeat_interleave(len(t_D), dim=0), t_D.repeat(len(x)), u_D.repeat(len(x), 1)
        elbo = objective.elbo(recorder, x0, t, u)
        if grid.masks == "independent":
            alpha = _alpha(objective, recorder.times, x0)
            assert alpha is not None
            chances = torch.where(u > 0, 1 - alpha, alpha).prod(dim=1)
        else:
            chances = torch.full_like(t, len(times) / len(t_D))
        terms = torch.stack([elbo.total, elbo.reconstruction + elbo.prior])
        return (weight_D.repeat(len(x)) * chances * terms).view(2, len(x), -1).sum(dim=2)

    count = 1 + len(sequences) * len(t_D) // MAX_ROWS
    totals, boundary = torch.cat([sums(x) for x in sequences.chunk(count)], dim=1)
    return totals, boundary


def _sampled(objective: Objective, denoiser: Denoiser, sequences: Tensor) -> Mean:
    """Return means over scrambled Sobol points, with more of them where a time or a uniform is near 0 or 1."""
    num_points = 2 ** int(math.log2(SAMPLED_ROWS / len(sequences)))  # Sobol points come in powers of 2.
    x0 = sequences.repeat_interleave(num_points, dim=0)
    means = []
    for seed in range(REPLICATES):
        engine = SobolEngine(1 + sequences.shape[1], scramble=True, seed=seed)  # type: ignore[no-untyped-call]
        points = engine.draw(num_points, dtype=torch.float64).clamp(1 - LAST, LAST).repeat(len(sequences), 1)
        uniforms, densities = smooth_step(points)
        elbo = objective.elbo(denoiser, x0, uniforms[:, 0], uniforms[:, 1:])
        terms = torch.stack([elbo.total, elbo.reconstruction + elbo.prior])
        means.append((densities.prod(dim=1) * terms).view(2, len(sequences), -1).mean(dim=2))
    totals, boundary = torch.stack(means, dim=1)
    return Mean(totals, boundary.mean(dim=0), is_sampled=True)
