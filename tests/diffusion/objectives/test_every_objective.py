"""Laws of every objective, by enumeration of all its draws."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mdpipe.diffusion.objectives.base import Objective
from mdpipe.diffusion.objectives.genmd4 import GenMD4
from mdpipe.diffusion.rng import CounterRNG, stratified_times
from mdpipe.diffusion.schedules.base import Cosine, Linear, Polynomial, cosine_grid
from mdpipe.params.diffusion import (
    CosineConfig,
    D3PMConfig,
    GenMD4Config,
    LinearConfig,
    MD4Config,
    ObjectiveConfig,
    PolynomialConfig,
)
from tests.diffusion.all_kinds import every_objective, every_schedule
from tests.diffusion.objectives.enumeration import Uninformed, every_draw, expectation
from tests.diffusion.tables import Causal, random_timed

V, L = 3, 2
NAMES = sorted(every_objective(V, Linear()))
names = pytest.mark.parametrize("name", NAMES)


def with_unequal_exponents(objective: Objective) -> Objective:
    if isinstance(objective, GenMD4):
        objective.double().schedule.raw.data = torch.tensor([0.5, 2.0, 4.0], dtype=torch.float64)
    return objective


def denoiser_for(objective: Objective, seed: int):
    table = random_timed(V, L, seed)
    return Causal(table.table.detach()) if objective.is_causal else table


def test_every_kind_is_among_those_tested():
    assert {type(objective.config) for objective in every_objective(V, Linear()).values()} == set(
        ObjectiveConfig.kinds.values()
    )


@names
@pytest.mark.parametrize("schedule", every_schedule())
def test_an_uninformed_network_costs_exactly_log_v_a_token(name, schedule):
    objective, tokens = every_objective(7, schedule)[name], torch.tensor([6, 0, 3])
    total = expectation(objective, Uninformed(7), tokens).item()
    assert total == pytest.approx(3 * math.log(7), rel=1e-9)


@names
@settings(max_examples=5)
@given(
    seed=st.integers(0, 1000),
    schedule=st.sampled_from(
        [
            Linear(LinearConfig(epsilon=0.1)),
            Cosine(CosineConfig(epsilon=0.0)),
            Polynomial(PolynomialConfig(exponent=2.0)),
        ]
    ),
)
def test_it_bounds_the_cost_of_a_distribution(name, seed, schedule):
    """exp(-bound) is below a model's probability of each sequence, and those add up to 1; a likelihood reaches it."""
    objective = with_unequal_exponents(every_objective(V, schedule)[name])
    denoiser = denoiser_for(objective, seed)
    bounds = [expectation(objective, denoiser, torch.tensor(x)).item() for x in itertools.product(range(V), repeat=L)]
    total = sum(math.exp(-bound) for bound in bounds)
    assert total == pytest.approx(1, abs=1e-12) if objective.is_exact else total < 1


@names
def test_the_loss_has_the_value_of_the_bound(name):
    """On the same draws. Its gradient may differ; MaskGIT's loss is not a bound."""
    if name == "maskgit":
        return
    objective = with_unequal_exponents(every_objective(V, Linear())[name])
    denoiser, tokens = denoiser_for(objective, 0), torch.tensor([2, 1])
    draws = every_draw(objective, tokens)
    rows = tokens.expand(len(draws.time), -1)
    loss = objective.loss(denoiser, rows, draws.time, draws.u.repeat(1, objective.num_mask_samples))
    assert torch.allclose(loss, objective.elbo(denoiser, rows, draws.time, draws.u).total, rtol=1e-12)


@names
def test_loss_and_elbo_work_with_logits_of_any_precision(name):
    """Results are (B,) float64 with a gradient in every weight, from logits of bfloat16 as well."""
    objective = every_objective(V, Linear())[name]
    denoiser = denoiser_for(objective, 0).bfloat16()
    examples = torch.arange(64)
    tokens = (CounterRNG(0, "data").uniform(0, examples, L) * V).long()
    time = stratified_times(CounterRNG(0, "test"), 0, examples, 64)
    loss = objective.loss(
        denoiser, tokens, time, CounterRNG(0, "test").uniform(0, examples, objective.num_mask_samples * L)
    )
    total = objective.elbo(denoiser, tokens, time, CounterRNG(0, "test").uniform(0, examples, L)).total
    assert loss.shape == total.shape == (64,)
    assert loss.dtype == total.dtype == torch.float64
    loss.mean().backward()
    for weight in [denoiser.table, *objective.parameters()]:
        assert weight.grad.isfinite().all()
        assert weight.grad.any()


@names
def test_the_denoiser_sees_its_labels_but_not_its_targets(name):
    objective = every_objective(V, Linear())[name]
    seen = []

    class Recording(Uninformed):
        def __call__(self, tokens, time, class_labels):
            seen.append((tokens, class_labels.tolist()))
            return super().__call__(tokens, time, class_labels)

    draws = every_draw(objective, torch.tensor([0, 1]))
    rows = torch.tensor([0, 1]).expand(len(draws.time), -1)
    objective.elbo(Recording(V), rows, draws.time, draws.u, torch.arange(len(rows)))
    ((x_t, class_labels),) = seen
    assert class_labels == list(range(len(rows)))
    if objective.is_causal:
        assert x_t.tolist() == [[V, 0]]
    else:
        assert ((x_t == rows) | (x_t == objective.mask_id)).all()


def test_estimators_tell_the_bounds_apart():
    assert {name: objective.estimator for name, objective in every_objective(V, Linear()).items()} == {
        "md4": "md4 bound",
        "md4 in steps": "md4 bound, T = 5",
        "genmd4": "genmd4 bound",
        "genmd4 in steps": "genmd4 bound, T = 5",
        "maskgit": "md4 bound",
        "sedd": "score-entropy bound",
        "d3pm": "d3pm bound",
        "any_order": "any-order bound",
        "autoregressive": "exact likelihood",
    }


@names
def test_a_config_builds_its_objective(name):
    objective = every_objective(V, Linear())[name]
    built = Objective.build(objective.config, V)
    assert type(built) is type(objective)
    assert (built.config, built.vocab_size, built.mask_id) == (objective.config, V, V)


def test_settings_reach_the_objective():
    schedule = PolynomialConfig(exponent=2.0)
    built = Objective.build(MD4Config(schedule=schedule, timesteps=10, time_grid="cosine", num_mask_samples=2), 5)
    assert (built.num_mask_samples, built.schedule.config) == (2, schedule)
    assert torch.equal(built.discrete_time.times, cosine_grid(10))
    assert Objective.build(D3PMConfig(timesteps=4, auxiliary=0.5), 5).auxiliary == 0.5
    learned = Objective.build(GenMD4Config(initial_exponent=2.0, exponent_learning_rate=0.1, epsilon=0.2), 5)
    assert (learned.learning_rate, learned.schedule.epsilon) == (0.1, 0.2)
    assert learned.schedule.w.tolist() == pytest.approx([2.0] * 5)
