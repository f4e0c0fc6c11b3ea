"""Exact counts by enumeration: weights, times and masks, without chance."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mdpipe.diffusion.objectives.base import ELBO
from mdpipe.diffusion.objectives.baselines import AnyOrder
from mdpipe.diffusion.objectives.genmd4 import GenMD4
from mdpipe.diffusion.objectives.md4 import MD4, AbsorbingObjective
from mdpipe.diffusion.schedules.base import Linear, Schedule
from mdpipe.evaluation.control_variates import (
    MISMATCH,
    NOISE,
    PRIOR_COUNT,
    adjust_by_curve,
    controls_by_other_samples,
    diffusion_and_controls,
    fit_curve,
    group_shape,
    neighbor_nll,
    variance_ratio,
)
from mdpipe.evaluation.enumerated import all_masks
from mdpipe.evaluation.estimators import (
    EDGES,
    NEIGHBORS,
    MaskCounts,
    MaskSampler,
    estimator_of,
    exact_counts,
    mask_fraction,
    num_strata,
)
from mdpipe.params.diffusion import MD4Config
from tests.diffusion.all_kinds import every_objective, every_schedule
from tests.diffusion.objectives.enumeration import expectation
from tests.diffusion.tables import random_timed

V, L = 3, 4
X0 = torch.tensor([2, 0, 1, 1])
LAST = 1 - 2.0**-53
"""A uniform that masks its token."""
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
    objective, x0, quantiles = every_objective(V, schedule)[name], X0, 2000
    assert isinstance(objective, AbsorbingObjective | AnyOrder)
    counts, network = MaskCounts(objective, L, CPU), random_timed(V, L, 0)
    u = (torch.arange(quantiles).double() + 0.5) / quantiles
    total = 0.0
    for n in range(1, L + 1):
        sets = all_masks(L)[all_masks(L).sum(dim=1) == n]
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


def unequal_schedules(name: str) -> GenMD4:
    objective = every_objective(V, Linear())[name].double()
    assert isinstance(objective, GenMD4)
    objective.schedule.raw.data = torch.tensor([0.5, 2.0, 4.0], dtype=torch.float64)
    return objective


def check_masks(sample_masks: MaskSampler, u: Tensor, sets: Tensor, chance: Tensor) -> Tensor:
    """Check the probabilities and the control variates of all sets of masks; return the mean diffusion part."""
    x0 = X0.expand(len(sets), -1)
    with torch.no_grad():
        other_u = torch.tensor([0.4, 0.0, LAST, 0, LAST, 0]).double()
        found, other = sample_masks(x0, u, None), sample_masks(x0, other_u.expand_as(u), None)
    assert torch.equal(found.is_masked, sets)

    def mean(values: Tensor) -> Tensor:
        return (chance[:, None] * values).sum(dim=0)

    prob = mean(sets)
    assert torch.allclose(prob, found.mask_prob[0].expand(L))
    padded = functional.pad(sets, (2, 2), value=True)
    for state, state_prob in enumerate(found.state_prob()[:, 0]):
        is_state = torch.ones_like(sets)
        for bit, distance in enumerate(NEIGHBORS):
            is_state &= padded[:, 2 + distance :][:, :L] != bool(state >> bit & 1)
        assert torch.allclose(mean(sets & is_state), prob * state_prob)
        assert torch.equal(is_state, found.states == state)
    nll = torch.rand(2 ** len(NEIGHBORS), L, generator=torch.Generator().manual_seed(0)).double()
    terms = diffusion_and_controls([found, other], nll[:, None].expand(-1, len(sets), -1))[0][:, 0]
    assert torch.allclose(terms[1:] @ chance, torch.zeros(5).double(), atol=1e-12)
    if not sets.all():  # Otherwise, all controls are 0.
        assert (terms[1:5].abs().amax(dim=1) > 1e-3).all()
    return terms[0] @ chance


@pytest.mark.parametrize("name", ["genmd4", "genmd4 in steps"])
def test_masks_of_genmd4_are_independent_ones_given_any(name: str) -> None:
    """At each time, all sets of masks but the empty one, which costs nothing: the bound is unchanged."""
    objective, network = unequal_schedules(name), random_timed(V, L, 0)
    for v in (0.01, 0.3, 0.9):
        _, time, _ = objective.interval(torch.tensor([v]).double())
        m = objective.schedule.one_minus_alpha(time)[0, X0]
        chance = torch.where(all_masks(L), m, 1 - m).prod(dim=1)
        u = torch.cat([torch.full((2**L, 1), v), all_masks(L) * LAST], dim=1).double()
        with torch.no_grad():
            expected = objective.elbo(network, X0.expand(2**L, -1), u[:, 0], u[:, 1:]).diffusion @ chance
        sets, p = all_masks(L)[1:], 1 - chance[0]
        any_up_to = functional.pad(1 - (1 - m).cumprod(dim=0), (1, 0))
        middles = (any_up_to[1:] + any_up_to[:-1]) / 2 / p
        first = middles[sets.int().argmax(dim=1)]
        u = torch.cat([torch.full((len(sets), 1), v), first[:, None], sets * LAST], dim=1).double()
        found = check_masks(exact_counts(objective, network), u, sets, chance[1:] / p)
        assert found.item() == pytest.approx(expected.item(), rel=1e-9)


@counted
def test_controls_of_counts_have_expectation_zero(name: str) -> None:
    """Over all sets of each size, on every neighborhood of a token."""
    objective = every_objective(V, Linear())[name]
    sample_masks = exact_counts(objective, random_timed(V, L, 0))
    for n in range(1, L + 1):
        sets = all_masks(L)[all_masks(L).sum(dim=1) == n]
        u = torch.cat([torch.full((len(sets), 2), (n - 0.5) / L), sets * LAST], dim=1).double()
        check_masks(sample_masks, u, sets, torch.full((len(sets),), 1 / len(sets)).double())


@pytest.mark.parametrize("max_pairs", [1, 10**6])
def test_other_draws_predict_as_a_gaussian_process(max_pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a separate regression for each sample and token; token by token and all at once."""
    monkeypatch.setattr("mdpipe.evaluation.control_variates.MAX_PAIRS", max_pairs)
    random = torch.Generator().manual_seed(0)
    sample_masks = exact_counts(every_objective(V, Linear())["md4"], random_timed(V, L, 0))
    with torch.no_grad():
        samples = [
            sample_masks(X0.expand(2, -1), torch.rand(2, 2 + L, generator=random).double(), None) for _ in range(6)
        ]
    values = [torch.rand(1, 2, L, generator=random).double() for _ in samples]
    controls, changes = controls_by_other_samples(samples, values)
    bits = np.arange(2 ** len(NEIGHBORS))[:, None] >> np.arange(len(NEIGHBORS)) & 1
    kernel = np.exp(-np.abs(bits[:, None] - bits) @ MISMATCH)

    def control(d: int, row: int, left_out: set[int]) -> float:
        total = 0.0
        for i in range(L):
            others = [k for k in range(6) if k not in left_out and samples[k].is_masked[row, i]]
            states = [int(samples[k].states[row, i]) for k in others]
            residuals = [
                float(values[k][0, row, i] - values[k][0, row][samples[k].is_masked[row]].mean()) for k in others
            ]
            solution = np.linalg.solve(kernel[np.ix_(states, states)] + NOISE * np.eye(len(states)), residuals)
            predicted = kernel[:, states] @ solution
            mean = float(samples[d].mask_prob[row]) * samples[d].state_prob()[:, row, i].numpy() @ predicted
            value = predicted[int(samples[d].states[row, i])] if samples[d].is_masked[row, i] else 0
            total += float(samples[d].weight[row]) * (value - mean)
        return total

    for d, row in np.ndindex(6, 2):
        assert controls[0, d, row].item() == pytest.approx(control(d, row, {d}), rel=1e-9, abs=1e-12)
        for e in range(6):
            expected = control(d, row, {d}) - control(d, row, {d, e})
            assert changes[0, row, d, e].item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("number", [2, 6, 40])
def test_covariances_are_those_of_pairs_of_samples(number: int) -> None:
    """Of random costs and controls, against the adjusted cost of one sample without the other: 40 have two groups."""
    random, (groups, size) = np.random.default_rng(0), group_shape(number)
    examples, strata = 9, number // 2
    q = (np.arange(number) % strata + random.random((examples, number))) / strata
    y, controls, excess = (random.normal(size=(*shape, examples, number)) for shape in ((), (4,), ()))
    changes = random.normal(size=(2, examples, groups, size, size))
    _, covariance = adjust_by_curve(y, controls, excess, changes, q, strata)
    v, slope = mask_fraction(q)
    edges, _ = mask_fraction(np.linspace(0, 1, strata + 1))
    for e in range(examples):
        others = np.arange(1 - e % 2, examples, 2)
        curve, coefficients = fit_curve(y[others], controls[:, others], v[others], slope[others])
        predicted = np.interp(v, EDGES, curve) * (1 + excess) + np.tensordot(coefficients[:2], controls[:2], axes=1)
        distance = slope * (y - predicted)
        ratio = variance_ratio(distance[others], slope[others])

        def adjustment(d: int, left_out: set[int], e: int = e, distance: Any = distance, ratio: float = ratio) -> float:
            known = [k for k in range(number) if k not in left_out]
            level = distance[e, known].sum() / (slope[e, known].sum() + ratio)
            stratum = d % strata
            mean_slope = strata * (edges[stratum + 1] - edges[stratum])
            return float(level * (mean_slope - slope[e, d] * (1 + excess[e, d])))

        def change(i: int, j: int, e: int = e, coefficients: Any = coefficients) -> float:
            of_level = adjustment(i, {i}) - adjustment(i, {i, j})
            of_controls = coefficients[2:] @ changes[:, e, i // size, i % size, j % size]
            return float(of_level - slope[e, i] * of_controls)

        pairs = [(i, j) for i, j in np.ndindex(number, number) if i != j and i // size == j // size]
        terms = [change(i, j) * change(j, i) * (1 + (i % strata == j % strata)) for i, j in pairs]
        assert covariance[e] == pytest.approx(sum(terms) / number**2, rel=1e-9)


def test_nll_given_neighbors_counts_all_others() -> None:
    """Against loops over the tokens, each of which is left out of its own counts."""
    tokens = np.random.default_rng(0).integers(V, size=(5, 6))
    found = np.exp(-neighbor_nll(tokens, V))

    def others(context: list[int], row: int, i: int) -> list[int]:
        """Return the other tokens with the same tokens as token i of the row at the distances `context`."""
        return [
            tokens[r, j]
            for r, j in np.ndindex(tokens.shape)
            if (r, j) != (row, i) and all(0 <= j + d < 6 and tokens[r, j + d] == tokens[row, i + d] for d in context)
        ]

    def frequency(context: list[int], row: int, i: int) -> float:
        left, right = (sorted((d for d in context if d * side > 0), key=abs) for side in (-1, 1))
        if left and right:
            prior = frequency(left[:-1] + right, row, i) * frequency(left + right[:-1], row, i)
            prior = min(prior / frequency(left[:-1] + right[:-1], row, i), 1)
        elif context:
            prior = frequency(left[:-1] + right[:-1], row, i)
        else:
            prior = 1 / V
        same, weight = others(context, row, i), PRIOR_COUNT if context else V
        return float((same.count(tokens[row, i]) + weight * prior) / (len(same) + weight))

    for row, i in np.ndindex(tokens.shape):
        for state in range(2 ** len(NEIGHBORS)):
            context = [d for k, d in enumerate(NEIGHBORS) if state >> k & 1]
            if all(0 <= i + d < 6 for d in context):
                assert found[state, row, i] == pytest.approx(frequency(context, row, i), rel=1e-5)


@pytest.mark.parametrize("shape", [(2, 1), (1, 2), (1, 3)])
def test_nll_of_short_windows_is_finite(shape: tuple[int, int]) -> None:
    found = neighbor_nll(np.zeros(shape, dtype=np.int64), V)
    assert found.shape == (2 ** len(NEIGHBORS), *shape)
    assert np.isfinite(found).all()


def test_mask_fraction_is_a_quantile_function() -> None:
    q = np.linspace(0, 1, 10_001)[:-1] + 0.5e-4
    v, slope = mask_fraction(q)
    assert np.allclose(np.diff(v), 1e-4 * (slope[1:] + slope[:-1]) / 2, atol=1e-4)
    assert slope.mean() == pytest.approx(1, abs=1e-3)
    assert mask_fraction(np.array([0.0, 1.0]))[0].tolist() == [0, 1]


@pytest.mark.parametrize("number", [2, 6, 16])
def test_what_the_curve_and_the_controls_explain_has_no_variance(number: int) -> None:
    """A smooth curve, a level of each example and a multiple of a control: every sample becomes the integral."""
    random, strata = np.random.default_rng(0), number // 2
    q = (np.arange(number) % strata + random.random((40, number))) / strata
    levels, controls = random.random((40, 1)), random.normal(size=(3, 40, number))
    heights = np.arange(len(EDGES))
    curve = np.interp(mask_fraction(q)[0], EDGES, heights) + levels
    groups, size = group_shape(number)
    no_changes = np.zeros((2, 40, groups, size, size))
    found, _ = adjust_by_curve(curve, controls, np.zeros_like(q), no_changes, q, strata)
    integral = np.sum((heights[1:] + heights[:-1]) / 2 * np.diff(EDGES)) + levels
    np.testing.assert_allclose(found.reshape(40, 2, strata).mean(axis=2), np.repeat(integral, 2, axis=1), rtol=1e-2)


@pytest.mark.parametrize("estimator", ["exact", "independent_times"])
def test_independent_draws_have_one_stratum(estimator: Any) -> None:
    assert num_strata(estimator, 8) == 1
    assert num_strata("exact_counts", 8) == num_strata("stratified_times", 8) == 4
