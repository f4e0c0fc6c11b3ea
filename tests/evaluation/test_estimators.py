"""Exact counts by enumeration: weights, times and masks, without chance."""

import math
from typing import Any

import pytest
import torch

from mdpipe.diffusion.objectives.base import ELBO
from mdpipe.diffusion.objectives.baselines import AnyOrder
from mdpipe.diffusion.objectives.genmd4 import GenMD4
from mdpipe.diffusion.objectives.md4 import MD4, AbsorbingObjective
from mdpipe.diffusion.schedules.base import Linear, Schedule
from mdpipe.evaluation.estimators import MaskCounts, estimator_of, exact_counts, plain_draws, strata_edges
from mdpipe.params.diffusion import MD4Config
from tests.diffusion.every import every_objective, every_schedule
from tests.diffusion.objectives.enumeration import expectation
from tests.diffusion.tables import masks, random_timed

V, L = 3, 4
CPU = torch.device("cpu")
COUNTED = ["md4", "md4 in steps", "maskgit", "sedd", "d3pm", "any_order"]
counted = pytest.mark.parametrize("name", COUNTED)
every = pytest.mark.parametrize("schedule", [*every_schedule(), *every_schedule(epsilon=0.1)])


def test_exact_counts_serve_every_bound_with_masks() -> None:
    names = {name: estimator_of(one, "exact_counts") for name, one in every_objective(V, Linear()).items()}
    assert names.pop("autoregressive") == "exact"
    assert names == dict.fromkeys([*COUNTED, "genmd4", "genmd4 in steps"], "exact_counts")


def test_a_bound_of_unknown_form_has_its_times_stratified() -> None:
    class Doubled(MD4):
        def elbo(self, *arguments: Any, **options: Any) -> ELBO:
            elbo = super().elbo(*arguments, **options)
            return ELBO(elbo.reconstruction, elbo.prior, 2 * elbo.diffusion)

    objective = Doubled(MD4Config(), V)
    assert estimator_of(objective, "exact_counts") == "stratified_times"
    assert estimator_of(objective, "independent_times") == "independent_times"


@counted
@every
def test_counts_and_times_give_the_enumerated_bound(name: str, schedule: Schedule) -> None:
    """All sets of each size, with the time | n by its quantiles, of a table that drifts with the time."""
    objective, x0, quantiles = every_objective(V, schedule)[name], torch.tensor([2, 0, 1, 1]), 2000
    assert isinstance(objective, AbsorbingObjective | AnyOrder)
    counts, network = MaskCounts(objective, L, CPU), random_timed(V, L, 0)
    u = (torch.arange(quantiles).double() + 0.5) / quantiles
    total = 0.0
    for n in range(1, L + 1):
        sets = masks(L)[masks(L).sum(dim=1) == n]
        time = counts.time(torch.full_like(u, n), u).repeat_interleave(len(sets))
        x_t = torch.where(sets, V, x0).repeat(quantiles, 1)  # The sets vary fastest.
        with torch.no_grad():
            loss = objective.token_loss(network.head(network(x_t, time, None)).flatten(0, 1), x0.repeat(len(x_t)))
        mean_loss = torch.where(x_t == V, loss.view_as(x_t), 0).sum(dim=1).mean() / n
        total += (counts.weights[n - 1] * mean_loss).item()
    if isinstance(objective, AbsorbingObjective):
        total += objective.add_boundary_terms(torch.zeros(1).double(), L).total.item()
    in_steps = getattr(objective, "discrete_time", None) is not None  # Each has a multiple of 1 / quantiles.
    assert total == pytest.approx(expectation(objective, network, x0).item(), rel=5e-4 if in_steps else 1e-5)


@counted
@every
def test_uniform_v_gives_counts_by_their_weights(name: str, schedule: Schedule) -> None:
    """Of an equidistant grid, within a step of it; the weights add up to L (m(1) - m(0)), also for a long sequence."""
    objective = every_objective(V, schedule)[name]
    assert isinstance(objective, AbsorbingObjective | AnyOrder)
    for length in (1, 7, 500):
        counts = MaskCounts(objective, length, CPU)
        n = counts.count((torch.arange(10_000).double() + 0.5) / 10_000)
        frequencies = n.bincount(minlength=length + 1)[1:] / 10_000
        assert torch.allclose(frequencies.double(), counts.weights / counts.total, rtol=0, atol=1.01e-4)
        assert (n.diff() >= 0).all()
        if isinstance(objective, AbsorbingObjective):
            first, last = objective.schedule.one_minus_alpha(torch.tensor([0.0, 1.0]).double())
            assert counts.total == pytest.approx(length * (last - first).item(), rel=1e-9)


@pytest.mark.parametrize("name", ["genmd4", "genmd4 in steps"])
def test_control_variates_of_genmd4_have_expectation_zero(name: str) -> None:
    """At each time, over all sets of masks: the bound is unchanged, and the weights of the masks have no excess."""
    objective = every_objective(V, Linear())[name].double()
    assert isinstance(objective, GenMD4)
    objective.schedule.raw.data = torch.tensor([0.5, 2.0, 4.0], dtype=torch.float64)
    x0, surprisal, network = torch.tensor([2, 0, 1, 1]), torch.tensor([0.1, 2.0, 0.7, 0.7]), random_timed(V, L, 0)
    for v in (0.01, 0.3, 0.9):
        sets = masks(L)
        u = torch.cat([torch.full((len(sets), 2), v), sets * (1 - 2.0**-53)], dim=1).double()
        time = torch.tensor([v]).double()
        time = (
            1e-3 + (1 - 1e-3) * time if objective.discrete_time is None else objective.discrete_time.interval(time)[1]
        )
        mask_prob = objective.schedule.one_minus_alpha(time)[0, x0]
        chance = torch.where(sets, mask_prob, 1 - mask_prob).prod(dim=1)
        rows = (x0.expand(len(sets), -1), surprisal.expand(len(sets), -1).double(), u, None)
        with torch.no_grad():
            (controlled, excess), (plain, _) = (
                build(objective, network)(*rows) for build in (exact_counts, plain_draws)
            )
        assert (chance * excess).sum().item() == pytest.approx(0, abs=1e-12)
        assert (chance * controlled.total).sum().item() == pytest.approx((chance * plain.total).sum().item(), rel=1e-12)
        assert not torch.allclose(controlled.total, plain.total)


@pytest.mark.parametrize("number", [2, 8, 16, 20])
def test_strata_cover_the_unit_interval(number: int) -> None:
    """Two draws in each; finer strata subdivide coarser ones where their number is a multiple."""
    for estimator in ("exact_counts", "stratified_times"):
        edges = strata_edges(estimator, number)
        assert len(edges) == number // 2 + 1
        assert (edges[0], edges[-1]) == (0, 1)
        assert (edges[1:] > edges[:-1]).all()
        assert set(edges.round(12)) <= set(strata_edges(estimator, 2 * number).round(12))
    assert strata_edges("independent_times", number).tolist() == [0, 1]
    assert math.isclose(strata_edges("exact_counts", 16)[1], 0.035)
