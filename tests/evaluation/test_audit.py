"""Built-in objectives pass the audit, and numbers that are not bounds are refused with the figures of closed forms."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from mdpipe.diffusion.objectives.base import ELBO, Objective
from mdpipe.diffusion.objectives.baselines import Autoregressive
from mdpipe.diffusion.objectives.genmd4 import GenMD4
from mdpipe.diffusion.objectives.md4 import MD4, masked_token_losses
from mdpipe.diffusion.schedules.base import Linear
from mdpipe.evaluation.audit import (
    COUNTEREXAMPLES,
    SIGMAS,
    SOURCES,
    SUBTOKENS,
    Check,
    audit,
    check_sources,
    subtoken_source,
    token_bytes,
)
from mdpipe.evaluation.enumerated import (
    REPLICATES,
    contexts,
    exact_denoiser,
    find_enumeration,
    mean_elbo,
    random_table,
    zipf,
)
from mdpipe.params.diffusion import (
    AutoregressiveConfig,
    CosineConfig,
    GenMD4Config,
    LinearConfig,
    MD4Config,
    ObjectiveConfig,
    ScheduleConfig,
)
from tests.diffusion.all_kinds import every_objective
from tests.diffusion.objectives.enumeration import expectation
from tests.diffusion.tables import exact_table

V, L = 3, 3


@pytest.mark.parametrize("kind", sorted(ObjectiveConfig.kinds))
def test_every_objective_passes_under_all_schedules(kind):
    config = ObjectiveConfig.kinds[kind]
    checks = list(audit(config.model_validate({}), set(), must_meet=True))
    assert [check for check in checks if not check.passes] == []
    assert all(check.bound.stderr < 1e-7 for check in checks)
    settings = {check.setting for check in checks}
    if "schedule" in config.model_fields:
        assert {setting.partition(",")[0] for setting in settings} >= set(ScheduleConfig.kinds)
    if "timesteps" in config.model_fields:
        assert any(check.verdict.startswith("falls to ") for check in checks)


def test_stated_settings_stay_as_they_are():
    config = MD4Config(schedule=CosineConfig(), timesteps=3)
    checks = list(audit(config, {"schedule", "timesteps"}, must_meet=True))
    assert {check.setting for check in checks} == {""}
    objective = Objective.build(config, 2)
    mean = mean_elbo(objective, exact_denoiser(objective, SOURCES["copied bit"].joint), torch.tensor([[0, 0]]))
    (found,) = [check.bound.value for check in checks if check.source == "copied bit"]
    assert found == pytest.approx(mean.totals[0].item() / 2 / math.log(2), rel=1e-12)


@pytest.mark.parametrize("name", sorted(every_objective(V, Linear())))
def test_mean_elbo_is_the_expectation_over_all_draws(name):
    """As tests of the objectives enumerate it, from what is known of each of them."""
    objective = every_objective(V, Linear())[name]
    denoiser = random_table(V, L, seed=3, is_causal=objective.is_causal)
    sequences = torch.tensor([[2, 0, 1], [1, 1, 0]])
    mean = mean_elbo(objective, denoiser, sequences)
    for found, x in zip(mean.totals[0], sequences, strict=True):
        assert found.item() == pytest.approx(expectation(objective, denoiser, x).item(), rel=1e-8)


@pytest.mark.parametrize("name", ["copied bit", "even parity", "Markov chain", "independent tokens"])
def test_exact_denoiser_has_the_conditionals(name):
    """At masked positions of contexts that occur."""
    joint = SOURCES[name].joint
    found = exact_denoiser(Objective.build(MD4Config(), len(joint)), joint).table.softmax(dim=2)
    expected = exact_table(joint).table.softmax(dim=2)
    every_context = contexts(len(joint), joint.dim())
    occurs = torch.tensor(
        [joint[tuple(slice(None) if x == len(joint) else x for x in row)].sum() > 0 for row in every_context.tolist()]
    )
    is_compared = (every_context == len(joint)) & occurs[:, None]
    assert torch.allclose(found[is_compared], expected[is_compared], rtol=1e-12)


def entropy(frequencies: Tensor) -> float:
    return -torch.special.xlogy(frequencies, frequencies).sum().item() / math.log(2)


def weighted_once(joint: Tensor) -> float:
    """Return sum over k of the mean over sets S of k positions of H(x_S | the others) / k, in bits."""
    positions, total = range(joint.dim()), 0.0
    for k in range(1, joint.dim() + 1):
        sets = list(itertools.combinations(positions, k))
        others = [entropy(joint.sum(dim=chosen)) for chosen in sets]
        total += (entropy(joint) - sum(others) / len(sets)) / k
    return total


@pytest.mark.parametrize(
    ("number", "figure", "sorted_figure"), [(0, 4.544, 4.832), (1, 4.343, 4.814), (2, 4.266, 4.793)]
)
def test_joint_subtokens_are_below_by_the_closed_form(number, figure, sorted_figure):
    """Most for ids in no order; for ids sorted by frequency, digits say less about each other."""
    check = list(COUNTEREXAMPLES["joint_subtokens"].checks())[number]
    joint = subtoken_source(SUBTOKENS[number]).joint
    assert not check.passes and check.verdict.startswith("BELOW")
    assert check.entropy == pytest.approx(4.864, abs=5e-4)
    assert check.bound.value == pytest.approx(weighted_once(joint), rel=1e-9)
    assert check.bound.value == pytest.approx(figure, abs=5e-4)
    assert weighted_once(zipf(64).view(joint.shape)) == pytest.approx(sorted_figure, abs=5e-4)


@pytest.mark.parametrize("subtokens", SUBTOKENS)
def test_marginals_of_subtokens_meet_the_entropy(subtokens):
    """MD4 on the same sub-tokens: each masked one is weighted."""
    source = subtoken_source(subtokens)
    objective = MD4(MD4Config(schedule=LinearConfig(epsilon=0.0)), source.vocab_size)
    mean = mean_elbo(objective, exact_denoiser(objective, source.joint), source.sequences)
    assert mean.over(source.probabilities).value == pytest.approx(source.entropy, rel=1e-9)


def test_unweighted_snapshot_is_half_a_bit_on_fair_coins():
    (check,) = COUNTEREXAMPLES["unweighted_snapshot"].checks()
    assert not check.passes
    assert (check.entropy, check.bound.value) == pytest.approx((1, 0.5), rel=1e-9)


def test_assumed_bytes_divide_the_entropy_by_more_than_there_are():
    """Zipf's tokens have 2.441 bytes, not 4.3."""
    (check,) = COUNTEREXAMPLES["assumed_bytes"].checks()
    counted = (zipf(64) @ token_bytes().double()).item()
    assert counted == pytest.approx(2.441, abs=5e-4)
    assert not check.passes
    assert check.entropy == pytest.approx(entropy(zipf(64)) / counted, rel=1e-9)
    assert check.bound.value == pytest.approx(entropy(zipf(64)) / 4.3, rel=1e-9)
    assert (check.entropy, check.bound.value) == pytest.approx((1.992, 1.131), abs=5e-4)


class OtherUniforms(MD4):
    """MD4 with its own use of both: small uniforms mask, and t runs backwards."""

    def elbo(self, model, x0, t, u, class_labels=None) -> ELBO:
        return super().elbo(model, x0, 1 - t, 1 - 2.0**-53 - u, class_labels)


class InverseAlpha(MD4):
    """The weight 1 / alpha in place of 1 / (1 - alpha)."""

    def time_and_weight(self, t):
        return t, self.schedule.weight(t) * self.schedule.one_minus_alpha(t) / self.schedule.alpha(t)


class MeanOverMasked(MD4):
    """The mean over the masked tokens, times L, with MD4's weight: it forgets how many are masked."""

    def elbo(self, model, x0, t, u, class_labels=None) -> ELBO:
        x_t = self.q_sample(x0, t, u)
        count = (x_t == self.mask_id).sum(dim=1).clamp(min=1)
        cost = masked_token_losses(self, model, x_t, t, class_labels, x0).sum(dim=1) / count
        return self.add_boundary_terms(cost, x0.shape[1])


class WithoutBoundaryTerms(MD4):
    """The integral between alpha(0) and alpha(1) only."""

    def add_boundary_terms(self, diffusion, length) -> ELBO:
        return ELBO(torch.zeros_like(diffusion), torch.zeros_like(diffusion), diffusion)


class WithoutRate(GenMD4):
    """GenMD4 without w^T mu - w_x, which is zero where all exponents are equal."""

    def token_loss(self, logits, target, *step):
        return self.schedule.w.to(logits.dtype)[target] * -logits.log_softmax(dim=1).gather(1, target[:, None])[:, 0]


class ShownTheTarget(Autoregressive):
    """The tokens are not shifted: a causal denoiser reads the token that it predicts."""

    def elbo(self, model, x0, t, u, class_labels=None) -> ELBO:
        cost = -model.head(model(x0, t, class_labels)).log_softmax(dim=2).gather(2, x0[..., None]).sum(dim=(1, 2))
        return ELBO(torch.zeros_like(t), torch.zeros_like(t), cost)


class SeesThrough(OtherUniforms):
    """OtherUniforms, a percent too low: nothing about it can be enumerated."""

    def elbo(self, model, x0, t, u, class_labels=None) -> ELBO:
        bound = super().elbo(model, x0, t, u, class_labels)
        return ELBO(bound.reconstruction, bound.prior, 0.99 * bound.diffusion)


def checks_of(
    objective: type[Objective], config: ObjectiveConfig, *, has_noise: bool = False, must_meet: bool = False
) -> list[Check]:
    """Return the checks of an objective, with its parameters spread out if `has_noise`."""

    def build(vocab_size: int) -> Objective:
        built = objective(config, vocab_size)
        for parameter in built.parameters() if has_noise else ():
            parameter.data += torch.linspace(-1, 1, len(parameter))
        return built

    return list(check_sources("", build, must_meet=must_meet))


def test_uniforms_used_in_another_way_are_sampled_and_pass():
    """With a false-alarm rate of 1e-4."""
    assert find_enumeration(OtherUniforms(MD4Config(), V), L) is None
    checks = checks_of(OtherUniforms, MD4Config())
    assert all(check.passes for check in checks)
    assert all(0 < check.bound.stderr < 0.02 for check in checks)
    for check in checks[: len(SOURCES)]:
        assert check.bound.value == pytest.approx(check.entropy, abs=3e-4 + SIGMAS * check.bound.stderr)


@pytest.mark.parametrize(
    ("objective", "config", "has_noise"),
    [
        (MeanOverMasked, MD4Config(), False),
        (WithoutBoundaryTerms, MD4Config(), False),
        (WithoutRate, GenMD4Config(), True),
        (ShownTheTarget, AutoregressiveConfig(), False),
        (SeesThrough, MD4Config(), False),
    ],
)
def test_a_subtly_wrong_objective_is_below(objective, config, has_noise):
    assert any(check.is_below for check in checks_of(objective, config, has_noise=has_noise))


def test_weight_of_1_over_alpha_is_loose_and_should_be_tight():
    """Between 0.0001 and 0.9999 its integral over the time of a mask is log(1e4) - 1 + 1e-4 in place of 1 - 2e-4.

    Later masks cost more and weigh more, so it is above the entropy, where the audit demands that it meets it.
    """
    assert all(check.passes for check in checks_of(InverseAlpha, MD4Config()))
    strict = checks_of(InverseAlpha, MD4Config(), must_meet=True)
    (coins,) = [check for check in strict if check.source == "fair coins"]
    assert coins.bound.value == pytest.approx(math.log(0.9999 / 1e-4) - 0.9998 + 2e-4, rel=1e-6)
    assert [check.source for check in strict if not check.passes] == list(SOURCES)


class NotANumber(MD4):
    """A loss of 0 / 0 where nothing is masked."""

    def elbo(self, model, x0, t, u, class_labels=None) -> ELBO:
        bound = super().elbo(model, x0, t, u, class_labels)
        return ELBO(bound.reconstruction, bound.prior, bound.diffusion / bound.diffusion)


def test_what_is_not_a_number_fails():
    assert not any(check.passes for check in checks_of(NotANumber, MD4Config()))


def test_a_missing_rate_shows_only_with_unequal_exponents():
    """So learned parameters are varied."""
    assert all(check.passes for check in checks_of(WithoutRate, GenMD4Config()))


def test_chance_of_a_false_alarm_is_as_stated():
    """One-sided, Student's t with REPLICATES - 1 degrees of freedom, for 200 comparisons."""
    freedom = REPLICATES - 1
    x = torch.linspace(SIGMAS, 1000, 1_000_001, dtype=torch.float64)
    log_constant = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - math.log(freedom * math.pi) / 2
    density = torch.exp(log_constant - (freedom + 1) / 2 * torch.log1p(x**2 / freedom))
    assert 200 * torch.trapezoid(density, x).item() < 1e-4
