"""What holds for every objective, by enumeration of all its draws."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mdpipe.diffusion.objectives.base import Objective
from mdpipe.diffusion.objectives.build import build_objective, objective_class
from mdpipe.diffusion.objectives.genmd4 import GenMD4
from mdpipe.diffusion.rng import CounterRNG, stratified_times
from mdpipe.diffusion.schedules.cosine import Cosine
from mdpipe.diffusion.schedules.linear import Linear
from mdpipe.diffusion.schedules.polynomial import Polynomial
from mdpipe.kinds import kinds_of
from tests.diffusion.every import every_objective, every_schedule
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
    assert {type(objective) for objective in every_objective(V, Linear()).values()} == set(
        kinds_of("mdpipe.diffusion.objectives", Objective).values()
    )


@names
@pytest.mark.parametrize("schedule", every_schedule())
def test_an_uninformed_network_costs_exactly_log_v_a_token(name, schedule):
    objective, tokens = every_objective(7, schedule)[name], torch.tensor([6, 0, 3])
    total = expectation(objective, Uninformed(7), tokens).item()
    assert total == pytest.approx(3 * math.log(7), rel=1e-9)


@names
@settings(max_examples=5)
@given(seed=st.integers(0, 1000), schedule=st.sampled_from([Linear(0.1), Cosine(0.0), Polynomial(exponent=2.0)]))
def test_it_bounds_the_cost_of_a_distribution(name, seed, schedule):
    """exp(-bound) is below a model's probability of each sequence, and those add up to 1; a likelihood reaches it."""
    objective = with_unequal_exponents(every_objective(V, schedule)[name])
    denoiser = denoiser_for(objective, seed)
    bounds = [expectation(objective, denoiser, torch.tensor(x)).item() for x in itertools.product(range(V), repeat=L)]
    total = sum(math.exp(-bound) for bound in bounds)
    assert total == pytest.approx(1, abs=1e-12) if objective.is_exact else total < 1


@names
def test_the_loss_has_the_value_of_the_bound(name):
    """On the same draws, whatever else its gradient descends on; MaskGIT's loss is another thing."""
    if name == "maskgit":
        return
    objective = with_unequal_exponents(every_objective(V, Linear())[name])
    denoiser, tokens = denoiser_for(objective, 0), torch.tensor([2, 1])
    draws = every_draw(objective, tokens)
    rows = tokens.expand(len(draws.time), -1)
    copies = objective.num_loss_uniforms(L) // (objective.num_uniforms(L) or 1)
    loss = objective.loss(denoiser, rows, draws.time, draws.uniforms.repeat(1, copies))
    assert torch.allclose(loss, objective.elbo(denoiser, rows, draws.time, draws.uniforms).total, rtol=1e-12)


@names
def test_loss_and_elbo_work_with_logits_of_any_precision(name):
    """Results are (B,) float64 with a gradient in every weight, from logits of bfloat16 as well."""
    objective = every_objective(V, Linear())[name]
    denoiser = denoiser_for(objective, 0).bfloat16()
    examples = torch.arange(64)
    tokens = (CounterRNG(0, "data").uniform(0, examples, L) * V).long()
    time = stratified_times(CounterRNG(0, "test"), 0, examples, 64)
    loss = objective.loss(
        denoiser, tokens, time, CounterRNG(0, "test").uniform(0, examples, objective.num_loss_uniforms(L))
    )
    total = objective.elbo(
        denoiser, tokens, time, CounterRNG(0, "test").uniform(0, examples, objective.num_uniforms(L))
    ).total
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
        def __call__(self, tokens, time, condition):
            seen.append((tokens, condition.tolist()))
            return super().__call__(tokens, time, condition)

    draws = every_draw(objective, torch.tensor([0, 1]))
    rows = torch.tensor([0, 1]).expand(len(draws.time), -1)
    objective.elbo(Recording(V), rows, draws.time, draws.uniforms, torch.arange(len(rows)))
    ((corrupted, condition),) = seen
    assert condition == list(range(len(rows)))
    if objective.is_causal:
        assert corrupted.tolist() == [[V, 0]]
    else:
        assert ((corrupted == rows) | (corrupted == objective.mask_id)).all()


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


def test_names_of_params_build_objectives():
    schedule = {"kind": "polynomial", "exponent": 2.0}
    built = build_objective("md4", 5, schedule=schedule, timesteps=10, grid="cosine", masks=2)
    assert (built.vocabulary, built.mask_id, built.masks, built.discrete_time.timesteps) == (5, 5, 2, 10)
    assert built.schedule == Polynomial(exponent=2.0)
    assert build_objective("d3pm", 5, schedule=schedule, timesteps=4, auxiliary=0.5).auxiliary == 0.5
    learned = build_objective("genmd4", 5, initial_exponent=2.0, exponent_learning_rate=0.1)
    assert (learned.learning_rate, len(learned.schedule.w)) == (0.1, 5)
    for kind in ("any_order", "autoregressive"):
        assert isinstance(build_objective(kind, 5), objective_class(kind))
    with pytest.raises(ValueError, match=r"objective is 'md5'.*any_order, autoregressive, d3pm, genmd4"):
        build_objective("md5", 5)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("md4", {"timesteps": 0}, "diffusion.timesteps must be at least 1, or null for continuous time, not 0"),
        ("md4", {"timesteps": 2, "grid": "square"}, "diffusion.grid is 'square'; it must be one of cosine, uniform"),
        ("md4", {"masks": 0}, "diffusion.masks must be at least 1, not 0"),
        ("d3pm", {"timesteps": 2, "auxiliary": -1.0}, "diffusion.auxiliary must not be negative, and it is -1.0"),
        ("genmd4", {"initial_exponent": 0.0}, "diffusion.initial_exponent must be positive, not 0.0"),
        ("genmd4", {"initial_exponent": 1.0, "exponent_learning_rate": 0.0}, "exponent_learning_rate must be positive"),
    ],
)
def test_impossible_settings_are_refused(kind, settings, message):
    schedule = {} if kind == "genmd4" else {"schedule": {"kind": "linear"}}
    with pytest.raises(ValueError, match=message):
        build_objective(kind, 5, **schedule, **settings)
