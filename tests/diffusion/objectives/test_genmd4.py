"""GenMD4 against MD4 where its exponents are equal, and against enumeration where they are not."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mdpipe.diffusion.objectives.genmd4 import T_MIN, GenMD4
from mdpipe.diffusion.objectives.md4 import MD4
from mdpipe.evaluation.enumerated import Posterior, all_masks
from mdpipe.params.diffusion import GenMD4Config, MD4Config, PolynomialConfig
from tests.diffusion.objectives.enumeration import LAST, every_draw, expectation
from tests.diffusion.tables import SOURCES, exact_table, random_timed

V, L = 3, 2
X = torch.tensor([2, 0])
UNEQUAL = [0.5, 2.0, 4.0]
steps = pytest.mark.parametrize("timesteps", [None, 4])


def genmd4(exponents: list[float], **settings) -> GenMD4:
    """Return the objective with these exponents, in float64."""
    objective = GenMD4(GenMD4Config(**settings), len(exponents)).double()
    objective.schedule.raw.data = torch.tensor(exponents, dtype=torch.float64).expm1().log()
    return objective


@given(exponent=st.floats(1, 10), timesteps=st.sampled_from([None, 1, 7]), seed=st.integers(0, 1000))
def test_with_equal_exponents_it_is_md4_in_loss_and_gradient(exponent, timesteps, seed):
    """Of the polynomial schedule without epsilon, path by path, from T_MIN on where time is continuous."""
    denoiser = random_timed(V, L, seed)
    learned = genmd4([exponent] * V, timesteps=timesteps, epsilon=0.0)
    fixed = MD4(
        MD4Config(
            schedule=PolynomialConfig(epsilon=0.0, exponent=learned.schedule.w[0].item()),
            timesteps=timesteps,
            num_mask_samples=2,
        ),
        V,
    )
    pairs = torch.cartesian_prod(torch.arange(4), torch.arange(4))
    u = all_masks(L)[pairs].flatten(1) * LAST
    own_time = torch.linspace(0.01, 0.99, len(pairs)).double()
    time, scale = own_time, 1.0
    if timesteps is None:
        time, scale = T_MIN + (1 - T_MIN) * own_time, 1 - T_MIN
    x = X.expand(len(pairs), -1)
    found, expected = learned.loss(denoiser, x, own_time, u), scale * fixed.loss(denoiser, x, time, u)
    bound = learned.elbo(denoiser, x, own_time, u[:, :L])
    assert torch.allclose(found - bound.reconstruction - bound.prior, expected, rtol=1e-9)
    weights = (denoiser.table, denoiser.drift)
    for gradient, wanted in zip(
        torch.autograd.grad(found.sum(), weights), torch.autograd.grad(expected.sum(), weights), strict=True
    ):
        assert torch.allclose(gradient, wanted, rtol=1e-8, atol=1e-12)


def gradients(value: Tensor, objective: GenMD4, denoiser) -> tuple[Tensor, ...]:
    return torch.autograd.grad(value, (objective.schedule.raw, denoiser.table, denoiser.drift))


@steps
@settings(max_examples=5)
@given(exponents=st.lists(st.floats(0.3, 5), min_size=V, max_size=V, unique=True), seed=st.integers(0, 1000))
def test_mean_leave_one_out_gradient_is_gradient_of_bound(timesteps, exponents, seed):
    """Over all pairs of masks and all times, in the exponents and in the denoiser's weights."""
    denoiser, objective = random_timed(V, L, seed), genmd4(exponents, timesteps=timesteps)
    exact = gradients(expectation(objective, denoiser, X), objective, denoiser)
    draws = every_draw(objective, X)
    times = len(draws.time) // 4
    at_a_time = draws.chance.view(times, 4).sum(dim=1)
    chance = (draws.chance.view(times, 4, 1) * draws.chance.view(times, 1, 4) / at_a_time[:, None, None]).detach()
    u = draws.u.view(times, 4, L)
    pairs = torch.cat([u[:, :, None].expand(-1, -1, 4, -1), u[:, None].expand(-1, 4, -1, -1)], dim=3).flatten(0, 2)
    x, time = X.expand(len(pairs), -1), draws.time.view(times, 4)[:, :1].expand(-1, 16).flatten()
    loss = (chance.flatten() * objective.loss(denoiser, x, time, pairs)).sum()
    assert loss.item() == pytest.approx(expectation(objective, denoiser, X).item(), rel=1e-9)
    for found, wanted in zip(gradients(loss, objective, denoiser), exact, strict=True):
        assert torch.allclose(found, wanted, rtol=1e-7, atol=1e-10)


@steps
def test_naive_gradient_is_biased_only_in_the_exponents(timesteps):
    denoiser, objective = random_timed(V, L, 0), genmd4(UNEQUAL, timesteps=timesteps)
    exact = gradients(expectation(objective, denoiser, X), objective, denoiser)
    draws = every_draw(objective, X)
    x = X.expand(len(draws.time), -1)
    total = objective.elbo(denoiser, x, draws.time, draws.u).total
    naive = gradients((draws.chance.detach() * total).sum(), objective, denoiser)
    assert (naive[0] - exact[0]).norm() > 0.1 * exact[0].norm()
    for found, wanted in zip(naive[1:], exact[1:], strict=True):
        assert torch.allclose(found, wanted, rtol=1e-9, atol=1e-12)


def mean_bound(source: str, objective: GenMD4, denoiser) -> float:
    joint = SOURCES[source]
    return sum(
        chance * expectation(objective, denoiser, x).item()
        for chance, x in zip(joint[joint > 0].tolist(), joint.nonzero(), strict=True)
    )


@pytest.mark.parametrize("source", sorted(SOURCES))
def test_tight_at_exact_timed_conditionals_only(source):
    """Up to the guess at T_MIN, where about 1e-6 of the tokens are masked. Conditionals without the time are MD4's."""
    joint = SOURCES[source]
    objective = genmd4([4.0, 2.0, 3.0][: len(joint)], epsilon=0.0)
    chances = joint[joint > 0]
    entropy = -(chances * chances.log()).sum().item()
    timed = mean_bound(source, objective, Posterior(joint, objective.schedule))
    timeless = mean_bound(source, objective, exact_table(joint))
    assert -1e-9 < timed - entropy < 1e-4
    assert timeless - entropy > 0.01


def test_many_steps_are_continuous_time():
    """With an error of order 1 / T, which extrapolation from T and 2 T removes; up to the guess at T_MIN."""
    denoiser = random_timed(V, L, 0)
    exponents = [2.0, 3.0, 4.0]
    continuous = expectation(genmd4(exponents), denoiser, X).item()
    coarse, fine = (expectation(genmd4(exponents, timesteps=count), denoiser, X).item() for count in (400, 800))
    assert abs(fine - continuous) < 0.55 * abs(coarse - continuous) < 0.01
    assert 2 * fine - coarse == pytest.approx(continuous, abs=1e-4)


@given(
    exponents=st.lists(st.floats(0.1, 10), min_size=V, max_size=V),
    timesteps=st.integers(1, 1000),
    data=st.data(),
    seed=st.integers(0, 1000),
)
def test_a_step_costs_the_divergence_of_its_two_ways_back(exponents, timesteps, data, seed):
    """Between categoricals over V tokens and the mask, written out; the last step to time 0 too."""
    denoiser, objective = random_timed(V, 1, seed), genmd4(exponents, timesteps=timesteps)
    step, token = data.draw(st.integers(1, timesteps)), data.draw(st.integers(0, V - 1))
    time = torch.tensor([(step - 0.5) / timesteps]).double()
    start, end = objective.discrete_time.interval(time)
    cost = objective.elbo(denoiser, torch.tensor([[token]]), time, torch.ones(1, 1)).diffusion / timesteps
    unmask_prob = 1 - (objective.schedule.one_minus_alpha(start) / objective.schedule.one_minus_alpha(end))[0]
    mu = denoiser.head(denoiser(torch.tensor([[V]]), end, None))[0, 0].softmax(dim=0)
    truth = torch.cat([torch.eye(V, dtype=torch.float64)[token] * unmask_prob[token], 1 - unmask_prob[token, None]])
    model = torch.cat([mu * unmask_prob, ((1 - unmask_prob) * mu).sum()[None]])
    expected = torch.special.xlogy(truth, truth).sum() - torch.special.xlogy(truth, model).sum()
    assert cost.item() == pytest.approx(expected.item(), rel=1e-9, abs=1e-14)


def test_its_end_terms_are_exact():
    """prior: the divergence of the marginal at time 1; reconstruction: Bayes' rule, given only the mask."""
    objective = genmd4(UNEQUAL, epsilon=0.01)
    draws = every_draw(objective, X)
    bound = objective.elbo(random_timed(V, L, 0), X.expand(len(draws.time), -1), draws.time, draws.u)
    assert torch.allclose(bound.prior, torch.full_like(bound.prior, 2 * 0.01 * math.log(V)))
    masked = 0.99 * T_MIN**objective.schedule.w
    expected = -(masked[X] * (masked[X] / masked.sum()).log()).sum()
    assert torch.allclose(bound.reconstruction, expected, rtol=1e-9)
    found, wanted = (
        torch.autograd.grad(cost, objective.schedule.raw)[0] for cost in (bound.reconstruction[0], expected)
    )
    assert wanted.all()
    assert torch.allclose(found, wanted, rtol=1e-9)


def test_gradient_is_finite_where_all_is_masked_with_certainty():
    """At time 1 without epsilon, where log alpha is minus infinity."""
    objective = genmd4(UNEQUAL, timesteps=1, epsilon=0.0)
    loss = objective.loss(random_timed(V, L, 0), X[None], torch.zeros(1).double(), torch.zeros(1, 2 * L).double())
    (gradient,) = torch.autograd.grad(loss.sum(), objective.schedule.raw)
    assert loss.isfinite() and gradient.isfinite().all()
