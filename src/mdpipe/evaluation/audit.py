r"""The audit of an objective: is the number that its `elbo` returns an upper bound on -log p(x)?

Every source has a known entropy, and the denoiser is its exact conditionals, so that a bound may touch the entropy and
must not fall below it. A difference counts if it is more than SIGMAS standard errors, or quadrature errors: a correct
objective fails in less than one of 10,000 audits.

A bound b of any denoiser implies a code: by Kraft's inequality, sum_x exp(-b(x)) <= 1. On its worst source, p(x)
proportional to exp(-b(x)), a number that is not a bound is below the entropy by the logarithm of that sum.

`COUNTEREXAMPLES` are numbers that are not bounds, which the audit must refuse. Each shows one way to fall below the
entropy: a token that is weighted less than once, a step of the process in place of all of them, and a unit that is not
counted.

Shapes: B batch, L length, D sub-tokens of a token, S sequences; the mask's index is V.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mdpipe.diffusion.denoiser import Denoiser
from mdpipe.diffusion.objectives.base import ELBO, Objective
from mdpipe.diffusion.objectives.md4 import MD4, masked_token_losses
from mdpipe.evaluation.enumerated import (
    Mean,
    Source,
    copied_token,
    even_parity,
    exact_denoiser,
    exact_mean,
    independent_tokens,
    markov_chain,
    mean_elbo,
    random_joint,
    random_table,
    zipf,
)
from mdpipe.evaluation.estimate import Estimate
from mdpipe.params.diffusion import LinearConfig, MD4Config, ObjectiveConfig, ScheduleConfig

SIGMAS = 7
"""Errors beyond which two numbers differ. One-sided, the chance is 2e-7 per comparison with 23 degrees of freedom, and
1e-5 with the 11 of `check_worst_source`; an audit makes less than 200 comparisons."""
ROUNDING = 1e-9
"""Difference in nats that is taken for rounding."""
FALLS_BY = 0.75
"""Largest ratio of the excesses of 2 T and T steps; it tends to 1/2, since the error of a Riemann sum is O(1 / T)."""
STEPS = (32, 64, 128)
"""Numbers of steps whose bounds must fall to the entropy."""
STEPS_OF_OTHERS = 32
"""Steps where the check is not about their number."""
REQUIRED = {"polynomial": {"exponent": 2.0}}
"""Settings of schedules that have no default."""
MEETS = "meets it"
DIGITS = 4
"""Decimals of the numbers in bits."""
LARGE_EPSILON = 0.1
"""Makes the boundary terms so large that a wrong one shows."""

SOURCES: dict[str, Source] = {
    name: Source(joint, joint.dim())
    for name, joint in {
        "fair coins": independent_tokens([0.5, 0.5], 2),
        "independent tokens": independent_tokens([0.2, 0.3, 0.5], 3),
        "copied bit": copied_token([0.5, 0.5]),
        "copied rare bit": copied_token([0.9, 0.1]),
        "even parity": even_parity(3),
        "Markov chain": markov_chain([0.7, 0.3], [[0.9, 0.1], [0.2, 0.8]], 4),
        "Markov chain of 3 tokens": markov_chain(
            [0.6, 0.3, 0.1], [[0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.5, 0.4, 0.1]], 3
        ),
        "Zipf, 64 tokens": zipf(64),
    }.items()
}
"""Independent and dependent tokens, of even and uneven frequencies, in sequences of 1 to 4."""
CONFIG = MD4Config(schedule=LinearConfig(epsilon=0.0))
"""Objective without boundary terms, since epsilon is 0: all figures are exact."""
ZIPF_TOKENS = 64
ID_FACTOR = 5
"""Token r of Zipf's list has the id 5 r mod 64, since tokenizers do not number tokens by frequency."""
SUBTOKENS = (2, 3, 6)
RANKS_PER_BYTE = 7
MAX_BYTES = 8
ASSUMED_BYTES = 4.3
"""Bytes per token of a common tokenizer of English."""

Build = Callable[[int], Objective]
"""Builds an objective for V tokens."""


@dataclass(frozen=True)
class Check:
    """A comparison of a bound with the entropy that it must not be below, in bits per unit of the source."""

    setting: str
    source: str
    denoiser: str
    entropy: float
    bound: Estimate
    verdict: str
    passes: bool

    @property
    def is_below(self) -> bool:
        """Return True if it fails because the bound is below the entropy."""
        return not self.passes and self.bound.value < self.entropy


def compare(
    setting: str, name: str, denoiser: str, source: Source, bound: Estimate, slack: float | None = None
) -> Check:
    """Compare a bound in nats with the entropy of the source.

    Args:
        setting: Settings of the objective, in words.
        name: Name of the source.
        denoiser: Its name.
        source: The source.
        bound: The bound.
        slack: Largest excess in nats of a bound that must meet the entropy; None if it may be far above.
    """
    per_unit = 1 / (source.units * math.log(2))
    excess, error = bound.value - source.entropy, SIGMAS * bound.stderr + ROUNDING
    is_met = excess <= (slack or 0) + error
    verdict, passes = f"{MEETS}{_within(slack or 0, source)}" if is_met else "above it", True
    if math.isnan(excess - error):
        verdict, passes = "not a number", False
    elif excess < -error:
        verdict, passes = f"BELOW by {-excess * per_unit:.4g}", False
    elif slack is not None and not is_met:
        verdict, passes = f"ABOVE by {excess * per_unit:.4g}", False
    return Check(setting, name, denoiser, source.entropy * per_unit, bound.scale(per_unit), verdict, passes)


def _within(allowance: float, source: Source) -> str:
    """Return an allowance in nats as ` within 0.1000`, in bits per unit; "" if the digits do not show it."""
    shown = f"{allowance / (source.units * math.log(2)):.{DIGITS}f}"
    return f" within {shown}" if float(shown) else ""


def audit(config: ObjectiveConfig, stated: set[str], *, must_meet: bool) -> Iterator[Check]:
    """Check an objective on all sources, with the schedules and numbers of steps that its settings leave open.

    Args:
        config: Its settings.
        stated: The settings that are to stay as they are.
        must_meet: True if the bound of exact conditionals must be the entropy up to the boundary terms in continuous
            time and without time, and must fall to it in T steps. True for all built-in kinds; others may be looser.
    """
    fields = type(config).model_fields
    steps_vary = "timesteps" in fields and "timesteps" not in stated
    if steps_vary and getattr(config, "timesteps", None):
        config = _with(config, timesteps=STEPS_OF_OTHERS)
    is_discrete = bool(getattr(config, "timesteps", None))
    settings = {"": config}
    if "schedule" in fields and "schedule" not in stated:
        settings = {schedule["kind"]: _with(config, schedule=schedule) for schedule in _schedules()}
        large = _with(config, schedule={"kind": "linear", "epsilon": LARGE_EPSILON})
        settings |= {f"epsilon = {LARGE_EPSILON}": large}
    for name, varied in settings.items():
        setting = ", ".join(filter(None, [name, f"T = {STEPS_OF_OTHERS}" if steps_vary and is_discrete else ""]))
        yield from check_sources(setting, _builder(varied), must_meet=must_meet and not is_discrete)
    if list(Objective.build(config, vocab_size=2).parameters()):
        build = _builder(config, is_random=True)
        yield from check_sources("random parameters", build, must_meet=must_meet and not is_discrete)
    if steps_vary:
        time_grids = ("uniform", "cosine") if "time_grid" in fields and "time_grid" not in stated else (None,)
        for time_grid in time_grids:
            varied = config if time_grid is None else _with(config, time_grid=time_grid)
            yield from check_steps(varied, time_grid, must_meet=must_meet)


def _with(config: ObjectiveConfig, **changes: Any) -> ObjectiveConfig:
    return type(config).model_validate({**config.model_dump(), **changes})


def _schedules() -> Iterator[dict[str, Any]]:
    """Yield the settings of every schedule whose settings have defaults, here or in `REQUIRED`."""
    for kind, schedule in ScheduleConfig.kinds.items():
        required = {name for name, field in schedule.model_fields.items() if field.is_required()}
        if required <= REQUIRED.get(kind, {}).keys():
            yield {"kind": kind, **REQUIRED.get(kind, {})}


def _builder(config: ObjectiveConfig, *, is_random: bool = False) -> Build:
    """Return what builds the objective, with its learned parameters changed by normal noise if `is_random`."""

    def build(vocab_size: int) -> Objective:
        objective = Objective.build(config, vocab_size)
        generator = torch.Generator().manual_seed(0)
        for parameter in objective.parameters() if is_random else ():
            parameter.data += torch.randn(parameter.shape, generator=generator)
        return objective

    return build


def check_sources(setting: str, build: Build, *, must_meet: bool) -> Iterator[Check]:
    """Check an objective on all sources with exact conditionals, and other denoisers on the worst source for each."""
    for name, source in SOURCES.items():
        objective = build(source.vocab_size)
        mean = exact_mean(objective, source)
        slack = (mean.boundary @ source.probabilities).item() if must_meet else None
        yield compare(setting, name, "exact", source, mean.over(source.probabilities), slack)
    vocab_size, length = 3, 3
    objective = build(vocab_size)
    consistent = exact_denoiser(objective, random_joint(vocab_size, length, seed=1))
    yield check_worst_source(setting, "of a distribution", objective, consistent, length)
    table = random_table(vocab_size, length, seed=2, is_causal=objective.is_causal)
    yield check_worst_source(setting, "random", objective, table, length)


def check_worst_source(setting: str, name: str, objective: Objective, denoiser: Denoiser, length: int) -> Check:
    """Check a denoiser on the source for which its bound is least above the entropy, by Kraft's inequality."""
    vocab_size = objective.vocab_size
    sequences = torch.ones([vocab_size] * length).nonzero()
    mean = mean_elbo(objective, denoiser, sequences)
    # The estimates that choose the source are independent of those that are compared.
    chosen_by, compared = mean.totals.chunk(2) if mean.is_sampled else (mean.totals[:1], mean.totals)
    probabilities = (-chosen_by.mean(dim=0)).softmax(dim=0)
    source = Source(probabilities.view([vocab_size] * length), length)
    bound = Mean(compared, mean.boundary, mean.is_sampled).over(probabilities)
    return compare(setting, "the worst for it", name, source, bound)


def check_steps(config: ObjectiveConfig, time_grid: str | None, *, must_meet: bool) -> Iterator[Check]:
    """Check that the bound in T steps is above the entropy of dependent tokens, and falls to it as T doubles.

    Parameters of the objective, if it has any, are random.
    """
    for name in ("copied rare bit", "even parity"):
        source, excess = SOURCES[name], math.inf
        for count in STEPS:
            objective = _builder(_with(config, timesteps=count), is_random=True)(source.vocab_size)
            mean = exact_mean(objective, source)
            bound = mean.over(source.probabilities)
            boundary = (mean.boundary @ source.probabilities).item()
            slack = boundary + FALLS_BY * excess
            setting = f"T = {count}" if time_grid is None else f"T = {count}, {time_grid} grid"
            is_first = math.isinf(excess)
            check = compare(setting, name, "exact", source, bound, slack if must_meet and not is_first else None)
            falls = check.verdict.startswith(MEETS) and not is_first
            within = _within(boundary, source)
            yield replace(check, verdict=f"falls to{within or ' it'}") if falls else check
            excess = bound.value - source.entropy


class JointSubtokens(MD4):
    r"""A token as D = L sub-tokens, with the joint cross entropy of the masked sub-tokens weighted once.

    diffusion = (1 / t) * -log mu(masked sub-tokens | x_t)

    A bound takes the sum over the masked sub-tokens of their marginal cross entropies: each is a token of the process.
    That sum is larger than the joint one wherever sub-tokens depend on each other.
    """

    def elbo(self, model: Denoiser, x0: Tensor, t: Tensor, u: Tensor, class_labels: Tensor | None = None) -> ELBO:
        """Return one sample; by the chain rule, the joint is a product of conditionals of one sub-token each."""
        t, weight = self.time_and_weight(t)
        x_t = self.q_sample(x0, t, u)
        is_masked = x_t == self.mask_id
        positions = torch.arange(x0.shape[1])
        cross_entropy = torch.zeros_like(t)
        for position in positions.tolist():
            context = torch.where(positions < position, x0, x_t)
            logits = model.head(model(context, t, class_labels)[:, position])
            cross_entropy += torch.where(is_masked[:, position], self.token_loss(logits, x0[:, position]), 0)
        return self.add_boundary_terms(weight * cross_entropy, x0.shape[1])


class UnweightedSnapshot(MD4):
    """The mean over random times of the masked tokens' cross entropy, without the weight -alpha' / (1 - alpha)."""

    def elbo(self, model: Denoiser, x0: Tensor, t: Tensor, u: Tensor, class_labels: Tensor | None = None) -> ELBO:
        """Return one sample."""
        cross_entropy = masked_token_losses(self, model, self.q_sample(x0, t, u), t, class_labels, x0).sum(dim=1)
        return self.add_boundary_terms(cross_entropy, x0.shape[1])


def subtoken_source(subtokens: int) -> Source:
    """Return one Zipf token as sub-tokens, the digits of its id; bits are per token."""
    frequencies = torch.empty(ZIPF_TOKENS, dtype=torch.float64)
    frequencies[torch.arange(ZIPF_TOKENS) * ID_FACTOR % ZIPF_TOKENS] = zipf(ZIPF_TOKENS)
    base = round(ZIPF_TOKENS ** (1 / subtokens))
    return Source(frequencies.view([base] * subtokens), units=1)


def token_bytes() -> Tensor:
    """Return the length in bytes of each Zipf token: 1 for the most frequent ones, longer for rarer ones."""
    return (1 + torch.arange(ZIPF_TOKENS) // RANKS_PER_BYTE).clamp(max=MAX_BYTES)


@dataclass(frozen=True)
class Counterexample:
    """A number that is not a bound, on sources by name, and the reason."""

    objective: type[MD4]
    sources: dict[str, Source]
    unit: str
    reason: str
    factor: float = 1
    """Factor of the number that the objective returns."""

    def checks(self) -> Iterator[Check]:
        """Yield a check that fails for each source."""
        for name, source in self.sources.items():
            mean = exact_mean(self.objective(CONFIG, source.vocab_size), source)
            yield compare("", name, "exact", source, mean.over(source.probabilities).scale(self.factor))


COUNTED_BYTES = (zipf(ZIPF_TOKENS) @ token_bytes().double()).item()
"""Bytes per token of Zipf's tokens."""
COUNTEREXAMPLES = {
    "joint_subtokens": Counterexample(
        JointSubtokens,
        {f"Zipf, 64 tokens of {count} sub-tokens": subtoken_source(count) for count in SUBTOKENS},
        "bits/token",
        "each masked sub-token must be weighted, with its own cross entropy; the joint of a token's sub-tokens,"
        " weighted once, leaves out what they say about each other",
    ),
    "unweighted_snapshot": Counterexample(
        UnweightedSnapshot,
        {"fair coins": SOURCES["fair coins"]},
        "bits/token",
        "without the weight -alpha' / (1 - alpha), a token counts only for the fraction of the time at which it is"
        " masked: on average one half",
    ),
    "assumed_bytes": Counterexample(
        MD4,
        {
            f"Zipf, 64 tokens of {COUNTED_BYTES:.3f} bytes, taken for {ASSUMED_BYTES}": Source(
                zipf(ZIPF_TOKENS), units=COUNTED_BYTES
            )
        },
        "bits/byte",
        "the bits are divided by more bytes than the text has; bytes must be counted in the text that is evaluated",
        COUNTED_BYTES / ASSUMED_BYTES,
    ),
}
