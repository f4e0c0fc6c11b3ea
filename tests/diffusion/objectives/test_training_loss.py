"""The training loss apart from the bound: weights, time distributions and exact counts, against enumeration.

Shapes: R terms of an expectation, L positions, V vocabulary.
"""

import itertools
import math
from statistics import NormalDist

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from mdpipe.diffusion.objectives.base import Objective
from mdpipe.diffusion.objectives.baselines import D3PM, AnyOrder, MaskGIT
from mdpipe.diffusion.rng import CounterRNG, stratified_times
from mdpipe.diffusion.schedules.base import TimeDistribution
from mdpipe.evaluation.enumerated import all_masks
from mdpipe.params.diffusion import LogitNormalConfig, ObjectiveConfig, UniformTimesConfig
from tests.diffusion.objectives.enumeration import NODES, legendre
from tests.diffusion.tables import Timed, random_timed

V, L, DRAWS = 3, 3, 60_000
X0 = torch.tensor([2, 0, 1])
UNIFORM, LOGIT_NORMAL = UniformTimesConfig(), LogitNormalConfig(mean=-0.3, std=0.8)
TIMES = {"uniform": UNIFORM, "logit_normal": LOGIT_NORMAL}
COSINE = {"kind": "cosine", "epsilon": 0.05}
KINDS = {
    "md4": {"kind": "md4", "schedule": {"kind": "linear", "epsilon": 0.05}},
    "md4 in steps": {"kind": "md4", "timesteps": 4, "schedule": COSINE},
    "sedd": {"kind": "sedd", "schedule": COSINE},
    "d3pm": {"kind": "d3pm", "timesteps": 4, "auxiliary": 0.3},
    "any_order": {"kind": "any_order"},
    "maskgit": {"kind": "maskgit", "schedule": COSINE},
}
WEIGHTS = {name: ("mean" if name == "maskgit" else "bound", "flat") for name in KINDS}
CASES = [
    *((name, weight, time, False) for name in KINDS for weight, time in itertools.product(WEIGHTS[name], TIMES)),
    *((name, "bound", "uniform", True) for name in ("md4", "sedd")),
    ("md4", "flat", "uniform", True),
]


def build(name: str, weight: str = "flat", time: str = "logit_normal", is_exact: bool = False) -> Objective:
    settings = KINDS[name] | {"loss_weight": weight, "time_distribution": TIMES[time].model_dump()}
    return Objective.build(ObjectiveConfig.parse(settings | {"exact_counts": True} if is_exact else settings), V)


def quantile_nodes(time: str) -> tuple[Tensor, Tensor]:
    """Return times and their weights under the distribution: Gauss-Legendre in sqrt(t), or in the normal variable."""
    if time == "uniform":
        roots, weights = legendre(0, 1, NODES)
        return roots**2, weights * 2 * roots
    z, weights = legendre(-9, 9, 4 * NODES)
    return (LOGIT_NORMAL.mean + LOGIT_NORMAL.std * z).sigmoid(), weights * (-(z**2) / 2).exp() / math.sqrt(2 * math.pi)


def prob_below(t: float, time: str) -> float:
    if time == "uniform" or t in (0, 1):
        return t
    return NormalDist(LOGIT_NORMAL.mean, LOGIT_NORMAL.std).cdf(math.log(t / (1 - t)))


def terms(objective: Objective, weight: str, time: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return masks (R, L), their times (R,) and their coefficients (R,) in the expected loss."""
    masked = all_masks(L)
    sizes = masked.sum(dim=1).double()
    if isinstance(objective, AnyOrder | MaskGIT):
        rows = []
        for k in range(1, L + 1):
            ends = [end / L for end in (k - 1, k)]
            if isinstance(objective, AnyOrder):
                times, coefficients = torch.tensor([k / L]).double(), torch.ones(1).double()
            else:  # The network sees the time, of which k is the masked fraction rounded up.
                inverse = [objective.schedule.inverse(torch.tensor(1 - end).double()).item() for end in ends]
                ends = [0 if k == 1 else inverse[0], 1 if k == L else inverse[1]]
                low, high = (0.5 if end == 0.5 else prob_below(end, time) for end in ends)
                u, coefficients = legendre(low, high, 4 * NODES)
                times = u if time == "uniform" else TimeDistribution.build(LOGIT_NORMAL).quantile(u)
                coefficients = coefficients / (high - low)
            prob = prob_below(ends[1], time) - prob_below(ends[0], time)
            scale = prob * (1 if weight == "flat" else L / k) / math.comb(L, k)
            chosen = masked[sizes == k]
            for t, coefficient in zip(times, coefficients, strict=True):
                rows += [(mask, t, scale * coefficient) for mask in chosen]
        masks_R, times_R, coefficients_R = zip(*rows, strict=True)
        return torch.stack(masks_R), torch.stack(times_R), torch.stack(coefficients_R)
    if objective.discrete_time:
        steps = objective.discrete_time
        t, s = steps.times[1:], steps.times[:-1]
        ends = [prob_below(step / steps.timesteps, time) for step in range(steps.timesteps + 1)]
        chances = torch.tensor(ends).double().diff()
        m = objective.schedule.one_minus_alpha(t)
        bound = steps.timesteps * (m - objective.schedule.one_minus_alpha(s)) / m
    else:
        t, chances = quantile_nodes(time)
        m, bound = objective.schedule.one_minus_alpha(t), objective.schedule.weight(t)
    scale = chances * (1 if weight == "flat" else bound)
    law = m[:, None] ** sizes * (1 - m[:, None]) ** (L - sizes)
    return masked.repeat(len(t), 1), t.repeat_interleave(len(masked)), (scale[:, None] * law).flatten()


def masked_sums(objective: Objective, denoiser: Timed, masked: Tensor, t: Tensor) -> Tensor:
    """Return the sum of the token losses at the masked positions, (R,)."""
    logits = denoiser.head(denoiser(torch.where(masked, V, X0), t, None))
    losses = objective.token_loss(logits.flatten(0, 1), X0.repeat(len(t))).view(-1, L)
    return (losses * masked).sum(dim=1)


def moved(denoiser: Timed, direction: list[Tensor], size: float) -> Timed:
    table, drift = (
        weight.detach() + size * d for weight, d in zip((denoiser.table, denoiser.drift), direction, strict=True)
    )
    return Timed(table, drift)


@pytest.mark.parametrize(("name", "weight", "time", "is_exact"), CASES)
@torch.no_grad()
def test_mean_loss_and_gradient_are_the_enumerated_ones(name, weight, time, is_exact):
    """Independent draws, within 4.5 of their own standard errors: false alarm 7e-6. The gradient is along a direction,
    by differences, with a denoiser that depends on the time; D3PM's auxiliary term is in the gradient only.
    """
    objective = build(name, weight, time, is_exact)
    generator = torch.Generator().manual_seed(0)
    denoiser = random_timed(V, L, 0)
    direction = [torch.randn(denoiser.table.shape, generator=generator).double() for _ in range(2)]
    examples = torch.arange(DRAWS)
    t, u = (CounterRNG(0, stream).uniform(0, examples, count) for stream, count in (("times", 1), ("masks", L)))
    masked, times, coefficients = terms(objective, weight, time)
    step = 1e-4

    def loss(size: float) -> Tensor:
        return objective.loss(moved(denoiser, direction, size), X0.expand(DRAWS, L), t[:, 0], u)

    def sums(size: float) -> Tensor:
        return masked_sums(objective, moved(denoiser, direction, size), masked, times)

    boundary = 0
    if weight == "bound" and time == "uniform" and name != "any_order":
        first, last = objective.schedule.alpha(torch.tensor([0.0, 1.0]).double()).tolist()
        boundary = L * (1 - first + last) * math.log(V)
    slope = (sums(step) - sums(-step)) / (2 * step)
    expected = [(coefficients * sums(0)).sum() + boundary, (coefficients * slope).sum()]
    found = [loss(0), (loss(step) - loss(-step)) / (2 * step)]
    if isinstance(objective, D3PM):
        # Its value has no auxiliary term, so differences do not see it; autograd does, below.
        assert_gradient_has_auxiliary(objective, denoiser, t[:100, 0], u[:100])
    for estimate, exact in zip(found, expected, strict=True):
        error = estimate.std() / DRAWS**0.5
        assert 0 < error < 0.05 * max(1, exact.abs())
        assert (estimate.mean() - exact).abs() < 4.5 * error


@torch.enable_grad()
def assert_gradient_has_auxiliary(objective: D3PM, denoiser: Timed, t: Tensor, u: Tensor) -> None:
    """The gradient is that of (lambda + auxiliary) times the masked tokens' sum."""
    rows = X0.expand(len(t), L)
    x_t, time, weight = objective.training_sample(rows, t, u)
    sums = masked_sums(objective, denoiser, x_t == V, time)
    expected = torch.autograd.grad(((weight + objective.auxiliary) * sums).sum(), denoiser.table)[0]
    found = torch.autograd.grad(objective.loss(denoiser, rows, t, u).sum(), denoiser.table)[0]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("name", "weight", "time", "is_exact"), CASES)
def test_the_bound_does_not_depend_on_the_training_loss(name, weight, time, is_exact):
    """The same bytes on the same draws."""
    default = Objective.build(ObjectiveConfig.parse(KINDS[name]), V)
    denoiser, examples = random_timed(V, L, 0), torch.arange(50)
    t, u = stratified_times(CounterRNG(0, "t"), 0, examples, 50), CounterRNG(0, "u").uniform(0, examples, L)
    found, expected = (
        objective.elbo(denoiser, X0.expand(50, L), t, u) for objective in (build(name, weight, time, is_exact), default)
    )
    assert torch.equal(found.total, expected.total)
    assert torch.equal(found.diffusion, expected.diffusion)
    assert build(name, weight, time, is_exact).estimator == default.estimator


def test_flat_is_the_bounds_integrand_without_its_weight():
    flat, examples = build("md4", "flat", "uniform"), torch.arange(50)
    t, u = stratified_times(CounterRNG(0, "t"), 0, examples, 50), CounterRNG(0, "u").uniform(0, examples, L)
    denoiser, rows = random_timed(V, L, 0), X0.expand(50, L)
    diffusion = flat.elbo(denoiser, rows, t, u).diffusion
    torch.testing.assert_close(flat.loss(denoiser, rows, t, u), diffusion / flat.schedule.weight(t))


@pytest.mark.parametrize(
    ("name", "is_exact", "weight"),
    [("md4", False, "flat"), ("md4", True, "bound"), ("md4", True, "flat"), ("maskgit", False, "flat")],
)
def test_times_of_a_global_batch_stay_stratified(name, is_exact, weight):
    """Two processes with half of the rows each: every stratum of the distribution has one time, or count, of the batch.

    The denoiser sees them. Times of exact counts are random given the count, so that the counts are compared.
    """
    batch, length = 32, 16
    objective = build(name, weight, "uniform", is_exact=True) if is_exact else build(name, weight)
    seen = []

    class Recording(Timed):
        def forward(self, tokens: Tensor, time: Tensor, class_labels: Tensor | None) -> Tensor:
            seen.append((time, (tokens == V).sum(dim=1)))
            return torch.zeros(*tokens.shape, V, dtype=torch.float64)

    denoiser = Recording(*(random_timed(V, 1, 0).table.detach() for _ in range(2)))
    for rank in range(2):
        rows = torch.arange(rank * batch // 2, (rank + 1) * batch // 2)
        t = stratified_times(CounterRNG(0, "times"), 3, rows, batch)
        u = CounterRNG(0, "masks").uniform(3, rows, length)
        objective.loss(denoiser, torch.zeros(len(rows), length, dtype=torch.int64), t, u)
    times, counts = (torch.cat(part) for part in zip(*seen, strict=True))
    if not is_exact:
        strata = (torch.tensor([prob_below(t, "logit_normal") for t in times.tolist()]) * batch).floor()
        assert sorted(strata.tolist()) == list(range(batch))
        return
    expected = batch * objective.schedule.inverse(1 - torch.arange(length + 1).double() / length).diff()
    expected = torch.cat([torch.zeros(1), expected]) if weight == "bound" else torch.tensor(batch / (length + 1))
    assert ((torch.bincount(counts, minlength=length + 1) - expected).abs() <= 1).all()


@pytest.mark.parametrize("time", TIMES)
def test_quantile_inverts_the_distribution_function(time):
    distribution, u = TimeDistribution.build(TIMES[time]), torch.linspace(0.001, 0.999, 99, dtype=torch.float64)
    found = torch.tensor([prob_below(t, time) for t in distribution.quantile(u).tolist()], dtype=torch.float64)
    torch.testing.assert_close(found, u, rtol=0, atol=1e-12)
    assert distribution.quantile(torch.tensor([0.0, 1.0]).double()).tolist() == [0, 1]


def test_counts_that_no_time_has_are_refused():
    """They would be missing in the loss."""
    settings = KINDS["md4"] | {"exact_counts": True}
    for length, schedule in ((20, {"kind": "linear", "epsilon": 0.05}), (4, {"kind": "geometric", "beta_max": 1.0})):
        objective = Objective.build(ObjectiveConfig.parse(settings | {"schedule": schedule}), V)
        x0 = torch.zeros(1, length, dtype=torch.int64)
        with pytest.raises(ValueError, match=f"exact_counts needs mask probabilities .*, L = {length}; those of"):
            objective.training_sample(x0, torch.rand(1).double(), torch.rand(1, length).double())


@pytest.mark.parametrize(
    ("settings", "key", "rule"),
    [
        ({"kind": "genmd4", "loss_weight": "flat"}, "loss_weight", "must be bound for genmd4: the exponents minimize"),
        ({"kind": "genmd4", "time_distribution": "logit_normal"}, "time_distribution", "must be uniform for genmd4"),
        ({"kind": "genmd4", "exact_counts": True}, "exact_counts", "each token has its own probability"),
        ({"kind": "md4", "exact_counts": True, "timesteps": 8}, "exact_counts", "needs continuous time"),
        (
            {"kind": "sedd", "exact_counts": True, "loss_weight": "flat"} | {"schedule": COSINE},
            "exact_counts",
            "linear",
        ),
        (
            {"kind": "sedd", "exact_counts": True, "time_distribution": "logit_normal"},
            "exact_counts",
            "needs time_distribution: uniform",
        ),
        ({"kind": "md4", "loss_weight": "cubic"}, "loss_weight", "'bound' or 'flat'"),
        ({"kind": "maskgit", "loss_weight": "bound"}, "loss_weight", "'mean' or 'flat'"),
        ({"kind": "md4", "time_distribution": "beta"}, "time_distribution", "must be one of uniform, logit_normal"),
        ({"kind": "autoregressive", "loss_weight": "flat"}, "loss_weight", "unknown key"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_settings_that_an_objective_cannot_have_are_refused(settings, key, rule):
    with pytest.raises(ValidationError) as refused:
        ObjectiveConfig.parse(settings)
    assert key in str(refused.value)
    assert rule in str(refused.value)


def test_genmd4_models_of_earlier_versions_are_read():
    fixed = {"loss_weight": "bound", "time_distribution": {"kind": "uniform"}, "exact_counts": False}
    assert ObjectiveConfig.parse({"kind": "genmd4"} | fixed) == ObjectiveConfig.parse("genmd4")
