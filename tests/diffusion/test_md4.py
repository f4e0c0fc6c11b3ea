"""MD4's bound: the estimate, enumerated exactly on three tokens of an alphabet of three."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mdpipe.diffusion.md4 import MD4
from mdpipe.diffusion.noise import Noise, stratified_times
from mdpipe.diffusion.schedules import Cosine, Linear, Schedule

V, L = 3, 3
X = torch.tensor([[2, 0, 1]])

schedules = pytest.mark.parametrize("schedule", [Linear(), Cosine()], ids=["linear", "cosine"])


class Uninformed:
    """A network at initialisation: all logits are 0."""

    def __init__(self, vocabulary: int) -> None:
        self.vocabulary = vocabulary

    def __call__(self, tokens: Tensor, time: Tensor, condition: Tensor | None) -> Tensor:
        return torch.zeros(*tokens.shape, 1)

    def head(self, hidden: Tensor) -> Tensor:
        return hidden.expand(*hidden.shape[:-1], self.vocabulary)


def dense_entropies(denoiser, corrupted: Tensor, tokens: Tensor) -> Tensor:
    """-log mu of the true token at every position, masked or not, (B, L)."""
    logits = denoiser.head(denoiser(corrupted, torch.zeros(len(tokens)), None))
    return -logits.log_softmax(dim=-1).gather(2, tokens[..., None])[..., 0]


def integral_over_masks(denoiser, schedule: Schedule, masks: Tensor) -> Tensor:
    """The diffusion part: masks enumerated, times integrated by Gauss-Legendre quadrature in alpha's own variable.

    With p = 1 - alpha, weight dt = dp / p, so the integral is that of a polynomial in p, exact with few nodes.
    """
    objective = MD4(schedule, V)
    ends = 1 - schedule.alpha(torch.tensor([0.0, 1.0], dtype=torch.float64))
    nodes, node_weights = (torch.from_numpy(array) for array in np.polynomial.legendre.leggauss(8))
    shares = ends[0] + (ends[1] - ends[0]) * (nodes + 1) / 2
    entropies = dense_entropies(denoiser, torch.where(masks, objective.mask, X), X.expand(len(masks), L))
    masked = masks.sum(dim=1)
    losses = (entropies * masks).sum(dim=1)
    chances = shares[:, None] ** masked * (1 - shares[:, None]) ** (L - masked)
    integrand = (chances * losses).sum(dim=1) / shares
    return (node_weights * integrand).sum() * (ends[1] - ends[0]) / 2


@schedules
def test_the_mean_of_the_estimate_is_the_enumerated_bound(schedule, fixed, all_masks):
    """100,000 draws; within 4 of their standard errors (false alarm 6e-5). Stratified times only make it tighter."""
    draws = 100_000
    noise, examples = Noise(0, "test"), torch.arange(draws)
    times, uniforms = stratified_times(noise, 0, examples, draws), noise.uniform(0, examples, L)
    with torch.no_grad():
        bound = MD4(schedule, V).bound(fixed, X.expand(draws, L), times, uniforms)
        exact = integral_over_masks(fixed, schedule, all_masks)
    standard_error = bound.diffusion.std() / draws**0.5
    assert 0 < standard_error < 0.01 * exact
    assert abs(bound.diffusion.mean() - exact) < 4 * standard_error


@pytest.mark.parametrize("schedule", [Linear(0.0), Cosine(0.0)], ids=["linear", "cosine"])
def test_the_integral_is_the_any_order_bound_whatever_the_schedule(schedule, fixed, all_masks):
    """It is the sum over n of D[n], the mean over masks of n tokens of their average cross entropy; at epsilon = 0."""
    with torch.no_grad():
        entropies = dense_entropies(fixed, torch.where(all_masks, V, X), X.expand(len(all_masks), L))
        sizes = all_masks.sum(dim=1)
        averages = (entropies * all_masks).sum(dim=1) / sizes
        any_order = sum(averages[sizes == size].mean() for size in range(1, L + 1))
        integral = integral_over_masks(fixed, schedule, all_masks)
    assert torch.allclose(integral, any_order, rtol=1e-12)


@schedules
def test_an_uninformed_network_costs_exactly_log_v_a_token(schedule, all_masks):
    """Reconstruction, prior and the integral together, at epsilon > 0: the end terms make up for what it cuts off."""
    bound = MD4(schedule, V).bound(Uninformed(V), X, torch.tensor([0.5]).double(), torch.zeros(1, L).double())
    total = bound.reconstruction + bound.prior + integral_over_masks(Uninformed(V), schedule, all_masks)
    assert total.item() == pytest.approx(L * math.log(V), rel=1e-7)
    ends = 2 * schedule.epsilon * L * math.log(V)
    assert (bound.reconstruction + bound.prior).item() == pytest.approx(ends, rel=1e-9)


@given(
    tokens=st.lists(st.integers(0, 9), min_size=1, max_size=6),
    time=st.floats(0, 1),
    kind=st.sampled_from([Linear(), Cosine()]),
    seed=st.integers(0, 1000),
)
def test_an_uninformed_network_pays_weight_times_masked_count(tokens, time, kind, seed):
    x, t = torch.tensor([tokens]), torch.tensor([time], dtype=torch.float64)
    uniforms = Noise(seed, "test").uniform(0, torch.tensor([0]), len(tokens))
    objective = MD4(kind, 10)
    count = (objective.corrupt(x, t, uniforms) == 10).sum()
    bound = objective.bound(Uninformed(10), x, t, uniforms)
    assert bound.diffusion.dtype == torch.float64
    assert torch.allclose(bound.diffusion, kind.weight(t) * count * math.log(10), rtol=1e-6)
    assert torch.equal(bound.total, bound.reconstruction + bound.prior + bound.diffusion)


@given(
    tokens=st.lists(st.lists(st.integers(0, 9), min_size=4, max_size=4), min_size=1, max_size=5),
    time=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
def test_corruption_masks_or_leaves_alone(tokens, time, seed):
    """Nothing but the mask is ever written, and what was given is not written to."""
    x = torch.tensor(tokens)
    before = x.clone()
    t = torch.full((len(x),), time, dtype=torch.float64)
    corrupted = MD4(Linear(), 10).corrupt(x, t, Noise(seed, "test").uniform(0, torch.arange(len(x)), 4))
    assert torch.equal(x, before)
    assert ((corrupted == x) | (corrupted == 10)).all()


def test_more_time_masks_more():
    """With the same uniforms the masked sets are nested."""
    objective, times = MD4(Cosine(), V), torch.linspace(0, 1, 20, dtype=torch.float64)
    uniforms = Noise(0, "test").uniform(0, torch.zeros(20, dtype=torch.int64), 50)
    masked = objective.corrupt(torch.zeros(20, 50, dtype=torch.int64), times, uniforms) == objective.mask
    assert (masked[1:] >= masked[:-1]).all()


@schedules
@pytest.mark.parametrize("time", [0.1, 0.5, 0.9])
def test_the_masked_count_is_binomial(schedule, time):
    """Chi-square of 20,000 counts of 6 tokens against Binomial(6, 1 - alpha); false alarm about 1e-5 (6 sigma)."""
    draws, length = 20_000, 6
    t = torch.full((draws,), time, dtype=torch.float64)
    uniforms = Noise(0, "test").uniform(0, torch.arange(draws), length)
    objective = MD4(schedule, V)
    corrupted = objective.corrupt(torch.zeros(draws, length, dtype=torch.int64), t, uniforms)
    counts = torch.bincount((corrupted == objective.mask).sum(dim=1), minlength=length + 1).double()
    share = 1 - float(schedule.alpha(t[:1]))
    chances = [math.comb(length, n) * share**n * (1 - share) ** (length - n) for n in range(length + 1)]
    expected = draws * torch.tensor(chances, dtype=torch.float64)
    common = expected > 5
    statistic = ((counts - expected) ** 2 / expected)[common].sum()
    freedom = int(common.sum()) - 1
    assert abs(statistic - freedom) < 6 * (2 * freedom) ** 0.5


def test_with_the_linear_schedule_the_masked_count_of_a_random_time_is_uniform():
    draws, length = 20_000, 4
    noise, examples = Noise(0, "test"), torch.arange(draws)
    objective = MD4(Linear(0.0), V)
    corrupted = objective.corrupt(
        torch.zeros(draws, length, dtype=torch.int64),
        stratified_times(noise, 0, examples, draws),
        noise.uniform(0, examples, length),
    )
    counts = torch.bincount((corrupted == objective.mask).sum(dim=1)).double()
    expected = draws / (length + 1)
    assert counts.numel() == length + 1
    assert ((counts - expected).abs() < 5 * expected**0.5).all()


@schedules
def test_head_at_masked_positions_equals_the_dense_form_in_value_and_gradient(schedule, fixed):
    batch = 64
    noise, examples = Noise(0, "test"), torch.arange(batch)
    tokens = (noise.uniform(1, examples, L) * V).long()
    times, uniforms = stratified_times(noise, 0, examples, batch), noise.uniform(0, examples, L)
    objective = MD4(schedule, V)
    corrupted = objective.corrupt(tokens, times, uniforms)
    masked = corrupted == objective.mask

    sparse = objective.bound(fixed, tokens, times, uniforms).diffusion
    assert fixed.head_rows == masked.sum()
    dense = schedule.weight(times) * (dense_entropies(fixed, corrupted, tokens) * masked).sum(dim=1)

    assert torch.allclose(sparse, dense, rtol=1e-12)
    weights = list(fixed.parameters())
    sparse_gradient = torch.autograd.grad(sparse.mean(), weights)
    dense_gradient = torch.autograd.grad(dense.mean(), weights)
    for given_gradient, expected in zip(sparse_gradient, dense_gradient, strict=True):
        assert torch.allclose(given_gradient, expected, rtol=1e-10, atol=1e-14)


def test_nothing_masked_costs_nothing_and_has_a_gradient(fixed):
    time, uniforms = torch.tensor([0.0]).double(), torch.zeros(1, L).double()
    diffusion = MD4(Linear(), V).bound(fixed, X, time, uniforms).diffusion
    assert diffusion.item() == 0
    assert not any(gradient.any() for gradient in torch.autograd.grad(diffusion.sum(), list(fixed.parameters())))


def test_logits_of_low_precision_meet_a_softmax_in_float32():
    """The loss is that of the rounded logits in float64 to 1e-6, where bfloat16's own has 8 bits."""

    class Coarse(Uninformed):
        def head(self, hidden: Tensor) -> Tensor:
            return torch.linspace(-3, 3, self.vocabulary).bfloat16().expand(*hidden.shape[:-1], -1)

    time, uniforms = torch.tensor([1.0]).double(), torch.full((1, L), 0.999).double()
    diffusion = MD4(Linear(), V).bound(Coarse(V), X, time, uniforms).diffusion
    logits = torch.linspace(-3, 3, V).bfloat16().double()
    expected = Linear().weight(time) * -logits.log_softmax(dim=0)[X].sum(dim=1)
    assert torch.allclose(diffusion, expected, rtol=1e-6)


def test_the_condition_reaches_the_denoiser():
    class Conditioned(Uninformed):
        def __call__(self, tokens: Tensor, time: Tensor, condition: Tensor | None) -> Tensor:
            assert condition is not None and condition.tolist() == [7]
            return super().__call__(tokens, time, condition)

    time, uniforms = torch.tensor([0.5]).double(), torch.zeros(1, L).double()
    MD4(Linear(), V).bound(Conditioned(V), X, time, uniforms, torch.tensor([7]))
