"""MD4's bound against enumeration, with tables instead of networks and all masks instead of samples."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mdpipe.diffusion.objectives.md4 import MD4
from mdpipe.diffusion.rng import CounterRNG, stratified_times
from mdpipe.diffusion.schedules.base import Geometric, Linear, Schedule
from mdpipe.params.diffusion import EPSILON, CosineConfig, LinearConfig, MD4Config
from tests.diffusion.all_kinds import every_schedule
from tests.diffusion.objectives.enumeration import (
    LAST,
    Uninformed,
    average_entropies,
    enumerated_bound,
    expectation,
)
from tests.diffusion.statistical_tests import FALSE_ALARM, chi_square_chance
from tests.diffusion.tables import SOURCES, exact_table, random_table

V, L = 3, 3

kinds = pytest.mark.parametrize("kind", [LinearConfig, CosineConfig])
schedules = st.sampled_from([schedule for epsilon in (0.0, EPSILON, 0.1) for schedule in every_schedule(epsilon)])
complete = pytest.mark.parametrize(
    "schedule", [schedule for schedule in every_schedule(0.0) if not isinstance(schedule, Geometric)]
)
"""Those whose alpha falls from exactly 1 to exactly 0."""


@settings(max_examples=25)
@given(schedule=schedules, tokens=st.tuples(*[st.integers(0, V - 1)] * L), seed=st.integers(0, 1000))
def test_expectation_is_enumerated_bound_for_all_schedules(schedule: Schedule, tokens, seed):
    """It depends on the schedule only through alpha at both ends."""
    denoiser, x = random_table(V, L, seed), torch.tensor(tokens)
    exact = enumerated_bound(denoiser, x, schedule)
    assert expectation(MD4(MD4Config(schedule=schedule.config), V), denoiser, x).item() == pytest.approx(
        exact.item(), rel=1e-10
    )


@kinds
@pytest.mark.parametrize("epsilon", [EPSILON, 0.05])
def test_the_monte_carlo_mean_is_the_enumerated_bound(kind, epsilon):
    """100,000 independent draws, within 4.5 of their own standard errors: false alarm 7e-6."""
    draws, x = 100_000, torch.tensor([2, 0, 1])
    objective = MD4(MD4Config(schedule=kind(epsilon=epsilon)), V)
    denoiser, examples = random_table(V, L, 0), torch.arange(draws)
    times, u = (
        CounterRNG(0, "times").uniform(0, examples, 1)[:, 0],
        CounterRNG(0, "masks").uniform(0, examples, L),
    )
    with torch.no_grad():
        total = objective.elbo(denoiser, x.expand(draws, L), times, u).total
    exact = enumerated_bound(denoiser, x, objective.schedule)
    standard_error = total.std() / draws**0.5
    assert 0 < standard_error < 0.01 * exact
    assert (total.mean() - exact).abs() < 4.5 * standard_error


@complete
def test_without_epsilon_it_is_the_any_order_bound(schedule):
    """The sum of D[n]: what an autoregressive model over random orders costs."""
    for seed, x in enumerate(itertools.product(range(V), repeat=L)):
        denoiser, tokens = random_table(V, L, seed), torch.tensor(x)
        any_order = average_entropies(denoiser, tokens).sum()
        assert expectation(MD4(MD4Config(schedule=schedule.config), V), denoiser, tokens).item() == pytest.approx(
            any_order.item(), rel=1e-10
        )


@settings(max_examples=10)
@given(schedule=schedules, seed=st.integers(0, 1000))
def test_it_bounds_the_cost_of_a_distribution(schedule: Schedule, seed):
    """exp(-bound) is below a model's probability of each sequence, and those add up to 1; at any epsilon."""
    denoiser, objective = random_table(V, 2, seed), MD4(MD4Config(schedule=schedule.config), V)
    bounds = [expectation(objective, denoiser, torch.tensor(x)).item() for x in itertools.product(range(V), repeat=2)]
    assert sum(math.exp(-bound) for bound in bounds) <= 1 + 1e-12


@complete
@pytest.mark.parametrize("source", sorted(SOURCES))
def test_it_is_tight_at_the_exact_conditionals(schedule, source):
    """Its mean over the source is the source's entropy."""
    joint = SOURCES[source]
    denoiser, objective = exact_table(joint), MD4(MD4Config(schedule=schedule.config), len(joint))
    possible = joint.nonzero()
    chances = joint[joint > 0]
    bounds = torch.stack([expectation(objective, denoiser, x) for x in possible])
    any_order = torch.stack([average_entropies(denoiser, x).sum() for x in possible])
    entropy = -(chances * chances.log()).sum().item()
    assert (chances * any_order).sum().item() == pytest.approx(entropy, rel=1e-12)
    assert (chances * bounds).sum().item() == pytest.approx(entropy, rel=1e-10)


@given(schedule=schedules, vocab_size=st.integers(2, 1000), length=st.integers(1, 4))
def test_an_uninformed_network_costs_exactly_log_v_a_token(schedule: Schedule, vocab_size, length):
    """The end terms make up for what epsilon cuts off: epsilon + epsilon + (1 - 2 epsilon)."""
    objective, tokens = MD4(MD4Config(schedule=schedule.config), vocab_size), torch.zeros(length, dtype=torch.int64)
    token = math.log(vocab_size)
    bound = objective.elbo(Uninformed(vocab_size), tokens[None], torch.tensor([0.5]).double(), torch.zeros(1, length))
    first, last = schedule.alpha(torch.tensor([0.0, 1.0]).double())
    assert bound.reconstruction.item() == pytest.approx((1 - first).item() * length * token, abs=1e-12)
    assert bound.prior.item() == pytest.approx(last.item() * length * token, abs=1e-12)
    total = expectation(objective, Uninformed(vocab_size), tokens)
    assert total.item() == pytest.approx(length * token, abs=1e-6)
    assert total.item() == pytest.approx(length * token, rel=1e-10)


@given(
    tokens=st.lists(st.integers(0, 9), min_size=1, max_size=6),
    time=st.floats(0, 1),
    schedule=st.sampled_from(every_schedule()),
    seed=st.integers(0, 1000),
)
def test_an_uninformed_network_pays_weight_times_masked_count(tokens, time, schedule, seed):
    x, t = torch.tensor([tokens]), torch.tensor([time], dtype=torch.float64)
    u = CounterRNG(seed, "test").uniform(0, torch.tensor([0]), len(tokens))
    objective = MD4(MD4Config(schedule=schedule.config), 10)
    count = (objective.q_sample(x, t, u) == 10).sum()
    bound = objective.elbo(Uninformed(10), x, t, u)
    assert bound.diffusion.dtype == torch.float64
    assert torch.allclose(bound.diffusion, schedule.weight(t) * count * math.log(10), rtol=1e-12)
    assert torch.equal(bound.total, bound.reconstruction + bound.prior + bound.diffusion)


@given(
    tokens=st.lists(st.lists(st.integers(0, 9), min_size=4, max_size=4), min_size=1, max_size=5),
    schedule=schedules,
    times=st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted),
    seed=st.integers(0, 1000),
)
def test_later_times_mask_more_and_change_nothing_else(tokens, schedule: Schedule, times, seed):
    """With the same uniforms the masked sets are nested; an unmasked token is the clean one."""
    x, objective = torch.tensor(tokens), MD4(MD4Config(schedule=schedule.config), 10)
    before, u = x.clone(), CounterRNG(seed, "test").uniform(0, torch.arange(len(x)), 4)
    early, late = (objective.q_sample(x, torch.full((len(x),), t, dtype=torch.float64), u) for t in times)
    assert torch.equal(x, before)
    for x_t in (early, late):
        assert ((x_t == x) | (x_t == objective.mask_id)).all()
    assert ((early != objective.mask_id) | (late == objective.mask_id)).all()


@kinds
@pytest.mark.parametrize("time", [0.1, 0.5, 0.9])
def test_the_masked_count_is_binomial(kind, time):
    """Chi-square of 20,000 counts of 6 tokens against Binomial(6, 1 - alpha)."""
    draws, length = 20_000, 6
    t = torch.full((draws,), time, dtype=torch.float64)
    u = CounterRNG(0, "test").uniform(0, torch.arange(draws), length)
    objective = MD4(MD4Config(schedule=kind()), V)
    x_t = objective.q_sample(torch.zeros(draws, length, dtype=torch.int64), t, u)
    counts = torch.bincount((x_t == V).sum(dim=1), minlength=length + 1)
    mask_prob = 1 - objective.schedule.alpha(t[0]).item()
    chances = [math.comb(length, n) * mask_prob**n * (1 - mask_prob) ** (length - n) for n in range(length + 1)]
    assert chi_square_chance(counts, draws * torch.tensor(chances, dtype=torch.float64)) > FALSE_ALARM


def test_linear_schedule_masks_a_uniform_number_of_tokens():
    """Chi-square of 20,000 counts of 4 tokens, one time each."""
    draws, length, examples = 20_000, 4, torch.arange(20_000)
    times, u = (
        CounterRNG(0, "times").uniform(0, examples, 1)[:, 0],
        CounterRNG(0, "masks").uniform(0, examples, length),
    )
    x_t = MD4(MD4Config(schedule=LinearConfig(epsilon=0.0)), V).q_sample(
        torch.zeros(draws, length, dtype=torch.int64), times, u
    )
    counts = torch.bincount((x_t == V).sum(dim=1), minlength=length + 1)
    assert chi_square_chance(counts, torch.full((length + 1,), draws / (length + 1))) > FALSE_ALARM


@kinds
def test_head_at_masked_positions_equals_the_dense_form(kind):
    """The dense form: logits everywhere, then the cross entropies times the mask."""
    batch, denoiser, objective = 64, random_table(V, L, 0), MD4(MD4Config(schedule=kind()), V)
    rng, examples = CounterRNG(0, "test"), torch.arange(batch)
    tokens = (rng.uniform(1, examples, L) * V).long()
    times, u = stratified_times(rng, 0, examples, batch), rng.uniform(0, examples, L)
    x_t = objective.q_sample(tokens, times, u)
    masked = x_t == objective.mask_id

    sparse = objective.elbo(denoiser, tokens, times, u).diffusion
    assert denoiser.head_rows == masked.sum() < tokens.numel()

    logits = denoiser.head(denoiser(x_t, times, None))
    entropies = -logits.log_softmax(dim=2).gather(2, tokens[..., None])[..., 0]
    dense = objective.schedule.weight(times) * (entropies * masked).sum(dim=1)

    assert torch.allclose(sparse, dense, rtol=1e-12)
    weights = list(denoiser.parameters())
    sparse_gradient, dense_gradient = (torch.autograd.grad(loss.mean(), weights) for loss in (sparse, dense))
    for gradient, expected in zip(sparse_gradient, dense_gradient, strict=True):
        assert expected.any()
        assert torch.allclose(gradient, expected, rtol=1e-10, atol=1e-14)


def test_nothing_masked_costs_nothing_and_has_a_gradient():
    denoiser = random_table(V, L, 0)
    time, u = torch.zeros(1, dtype=torch.float64), torch.zeros(1, L, dtype=torch.float64)
    diffusion = MD4(MD4Config(), V).elbo(denoiser, torch.tensor([[2, 0, 1]]), time, u).diffusion
    assert diffusion.item() == 0
    assert not any(gradient.any() for gradient in torch.autograd.grad(diffusion.sum(), list(denoiser.parameters())))


def test_logits_of_low_precision_meet_a_softmax_in_float32():
    """The loss is that of the rounded logits in float64 to 1e-6, where bfloat16's own has 8 bits."""

    class Coarse(Uninformed):
        def head(self, hidden: Tensor) -> Tensor:
            return torch.linspace(-3, 3, self.vocab_size).bfloat16().expand(*hidden.shape[:-1], -1)

    tokens = torch.tensor([[2, 0, 1]])
    time, u = torch.ones(1, dtype=torch.float64), torch.full((1, L), LAST, dtype=torch.float64)
    diffusion = MD4(MD4Config(), V).elbo(Coarse(V), tokens, time, u).diffusion
    logits = torch.linspace(-3, 3, V).bfloat16().double()
    expected = Linear().weight(time) * -logits.log_softmax(dim=0)[tokens].sum(dim=1)
    assert torch.allclose(diffusion, expected, rtol=1e-6)


def test_the_denoiser_sees_x_t_times_and_class_labels():
    seen = []

    class Recording(Uninformed):
        def __call__(self, tokens: Tensor, time: Tensor, class_labels: Tensor | None) -> Tensor:
            seen.append((tokens.tolist(), time.tolist(), class_labels.tolist()))
            return super().__call__(tokens, time, class_labels)

    tokens, time = torch.tensor([[2, 0, 1]]), torch.tensor([0.25], dtype=torch.float64)
    u = torch.tensor([[0.0, LAST, 0.5]], dtype=torch.float64)
    MD4(MD4Config(), V).elbo(Recording(V), tokens, time, u, torch.tensor([7]))
    assert seen == [([[2, V, 1]], [0.25], [7])]
