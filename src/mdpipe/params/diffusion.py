"""Masking schedules and objectives."""

import math
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, ModelWrapValidatorHandler, model_validator

from mdpipe.params.errors import BrokenRules, errors_at, make_error
from mdpipe.params.fields import Positive
from mdpipe.params.registry import KindConfig

TimeGrid = Literal["uniform", "cosine"]
"""Spacing of the times: even, or small steps near time 1, where most is masked (eq. 6)."""
EPSILON = 1e-4
"""Fraction of tokens masked at time 0 and unmasked at time 1 (App. J.1); it keeps the weight finite."""


class ScheduleConfig(KindConfig, package="mdpipe.diffusion.schedules"):
    """Masking schedule alpha(t), the probability that a token is still unmasked at time t (Table 4)."""

    epsilon: Annotated[float, Field(ge=0, lt=0.5)] = EPSILON
    """Fraction of tokens masked at time 0 and unmasked at time 1; alpha(t) is stretched to run between the two."""


class LinearConfig(ScheduleConfig):
    """alpha(t) = 1 - t."""

    kind: Literal["linear"] = "linear"


class PolynomialConfig(ScheduleConfig):
    """alpha(t) = 1 - t^exponent."""

    kind: Literal["polynomial"] = "polynomial"
    exponent: Annotated[float, Field(ge=1, lt=math.inf)]
    """The power w of t; 1 is the linear schedule. Below 1 the slope at time 0 would be infinite."""


class GeometricConfig(ScheduleConfig):
    """alpha(t) = exp(-beta_min^(1 - t) beta_max^t); the defaults are those of the paper's figure."""

    kind: Literal["geometric"] = "geometric"
    beta_min: Annotated[float, Field(gt=0)] = 1e-5
    """Noise at t = 0: alpha(0) = exp(-beta_min)."""
    beta_max: Annotated[float, Field(gt=0, lt=math.inf)] = 20.0
    """Noise at t = 1: alpha(1) = exp(-beta_max); above `beta_min`."""

    def broken_rules(self) -> BrokenRules:
        """Yield that the noise does not grow."""
        if self.beta_min >= self.beta_max:
            yield ("beta_min",), f"must be below beta_max = {self.beta_max:g}"


class CosineConfig(ScheduleConfig):
    """alpha(t) = 1 - cos(pi/2 (1 - t))."""

    kind: Literal["cosine"] = "cosine"


class ObjectiveConfig(KindConfig, package="mdpipe.diffusion.objectives"):
    """Training loss and likelihood bound."""

    names_elsewhere: ClassVar[dict[str, str]] = {
        **dict.fromkeys(("mdlm", "subs", "llada"), "md4 here, with the linear schedule, its default"),
        "sedd_absorb": "sedd here",
        "d3pm_absorb": "d3pm here",
        **dict.fromkeys(("ar", "arm", "gpt"), "autoregressive here"),
        **dict.fromkeys(("ardm", "ao_arm", "oa_ardm"), "any_order here"),
    }
    has_time: ClassVar[bool] = True
    """False if the denoiser is not given a time."""
    is_causal: ClassVar[bool] = False
    """True if the denoiser must be causal."""
    sampler: ClassVar[str | None] = None
    """The one sampler of the objective; None for all samplers that belong to no other objective."""


class TimeDistributionConfig(KindConfig):
    """Distribution q of the time that training masks at. Its inverse maps the evenly spread times of a batch to t."""


class UniformTimesConfig(TimeDistributionConfig):
    """t uniform on [0, 1], as in the paper."""

    kind: Literal["uniform"] = "uniform"


class LogitNormalConfig(TimeDistributionConfig):
    """log(t / (1 - t)) normal, so that few times are near 0 or 1 (Esser et al. 2024, arXiv:2403.03206)."""

    kind: Literal["logit_normal"] = "logit_normal"
    mean: Annotated[float, Field(gt=-math.inf, lt=math.inf)] = 0.0
    """Mean of log(t / (1 - t)): the median time is 1/2 at 0, later above."""
    std: Annotated[float, Field(gt=0, lt=math.inf)] = 1.0
    """Standard deviation of log(t / (1 - t))."""


class TimedLossConfig(ObjectiveConfig):
    """An objective whose training times may have another distribution than the bound's."""

    time_distribution: TimeDistributionConfig = UniformTimesConfig()
    """Distribution q of the times in training; the bound that evaluates the run always takes uniform times."""


class WeightedLossConfig(TimedLossConfig):
    """An objective whose training loss may have other weights than the bound, E over t ~ q of lambda(t) times the sum
    of the masked tokens' losses. The bound that evaluates the run is the same for all q and lambda.
    """

    loss_weight: Literal["bound", "flat"] = "bound"
    """Weight lambda(t) in training: `bound`, -alpha'(t) / (1 - alpha(t)), or `flat`, 1."""


class CountedLossConfig(WeightedLossConfig):
    """An objective that can mask exact numbers of tokens in training."""

    exact_counts: bool = False
    """Training draws the number of masked tokens, evenly spread over the batch, and then the time given this number.
    The expected loss is the same as with independent masks, the bound or its flat weight, in continuous time."""

    def broken_rules(self) -> BrokenRules:
        """Yield losses under which rare numbers of masks would weigh too much."""
        if self.exact_counts and self.time_distribution != UniformTimesConfig():
            yield ("exact_counts",), "needs time_distribution: uniform"
        # Under other schedules the weight of a time given the number of masks, 1 / |alpha'(t)|, has infinite variance.
        is_linear = isinstance(getattr(self, "schedule", None), LinearConfig)
        if self.exact_counts and self.loss_weight == "flat" and not is_linear:
            yield ("exact_counts",), "needs schedule: linear with loss_weight: flat"


class ScheduledConfig(ObjectiveConfig):
    """An objective under a fixed masking schedule."""

    schedule: ScheduleConfig = LinearConfig()
    """Rate at which tokens are masked as time runs from 0 to 1 (Table 4)."""


class DiscreteTimeConfig(ObjectiveConfig):
    """An objective in continuous time or in T steps."""

    timesteps: Positive | None = None
    """Steps of the discrete-time bound, or null for continuous time."""
    time_grid: TimeGrid = "uniform"
    """Spacing of these steps: even, or cosine, with small steps near t = 1 (eq. 6). Unused in continuous time."""
    renamed: ClassVar[dict[str, str]] = {"grid": "time_grid", "masks": "num_mask_samples"}


class MD4Config(DiscreteTimeConfig, ScheduledConfig, CountedLossConfig):
    """The paper's bound, weighted cross entropies at masked positions (eq. 5)."""

    kind: Literal["md4"] = "md4"
    num_mask_samples: Positive = 1
    """Mask samples per example and training step. GenMD4 needs two; give MD4 two in a fair comparison with it."""

    def broken_rules(self) -> BrokenRules:
        """Yield that exact counts have no continuous time."""
        yield from super().broken_rules()
        if self.exact_counts and self.timesteps is not None:
            yield ("exact_counts",), f"needs continuous time, not timesteps = {self.timesteps}"


class GenMD4Config(DiscreteTimeConfig):
    """A schedule per token, 1 - (1 - epsilon) t^w, with a learned exponent w (Section 6).

    It is trained by its bound, with uniform times and independent masks.
    """

    kind: Literal["genmd4"] = "genmd4"
    initial_exponent: Annotated[float, Field(gt=0, lt=math.inf)] = 1.0
    """Value of every exponent w before training; 1 is the linear schedule."""
    exponent_learning_rate: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Peak learning rate of the exponents, which follows the network's warm-up and decay; null for the network's."""
    epsilon: Annotated[float, Field(ge=0, lt=1)] = EPSILON
    """Fraction of each token that is unmasked at time 1."""
    sampler: ClassVar[str | None] = "genmd4_ancestral"

    @model_validator(mode="wrap")
    @classmethod
    def _refuse_other_losses(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Refuse losses that MD4 has; models of earlier versions state these settings, with the values of the bound."""
        shrink = "the exponents minimize the training loss, and would lower any other by shrinking, not by predicting"
        fixed: dict[str, tuple[list[Any], str]] = {
            "loss_weight": (["bound"], f"must be bound for genmd4: {shrink}"),
            "time_distribution": (["uniform", {"kind": "uniform"}], f"must be uniform for genmd4: {shrink}"),
            "exact_counts": ([False], "must be false for genmd4: each token has its own probability of being masked"),
        }
        rest = dict(data) if isinstance(data, dict) else {}
        stated = [(key, rest.pop(key), *fixed[key]) for key in fixed if key in rest]
        if wrong := [((key,), value, make_error(rule)) for key, value, allowed, rule in stated if value not in allowed]:
            raise errors_at(wrong)
        return handler(rest if stated else data)


class MaskGITConfig(ScheduledConfig, TimedLossConfig, module="baselines"):
    """Cross entropy at exactly the masked fraction of the schedule, its mean over the masked tokens as in MaskGIT's
    code; evaluated by MD4's bound.
    """

    kind: Literal["maskgit"] = "maskgit"
    loss_weight: Literal["mean", "flat"] = "mean"
    """`mean`: the length times the mean over an example's masked tokens. Under the linear schedule this weighs times
    by 1 / t, as the bound does. `flat`: the sum over the masked tokens (eq. 28)."""


class SEDDConfig(ScheduledConfig, CountedLossConfig, module="baselines"):
    """Score entropy of the absorbing process (eq. 24), without normalizing the scores."""

    kind: Literal["sedd"] = "sedd"


class D3PMConfig(ScheduledConfig, WeightedLossConfig, module="baselines"):
    """The discrete-time absorbing process with an auxiliary cross entropy."""

    kind: Literal["d3pm"] = "d3pm"
    timesteps: Positive = 1000
    """Steps of the discrete-time process; D3PM's default."""
    auxiliary: Annotated[float, Field(ge=0, lt=math.inf)] = 0.001
    """Weight of the auxiliary cross entropy, next to the bound as a sum over the steps: D3PM's eq. 5, with its value.
    D3PM's code averages over the steps instead: the same value weighs `timesteps` times as much there."""


class AnyOrderConfig(WeightedLossConfig, module="baselines"):
    """The any-order autoregressive bound: a uniform number of masks, then a uniform set of that size.

    Its time is the masked fraction, and `loss_weight: bound` is the inverse of it.
    """

    kind: Literal["any_order"] = "any_order"
    has_time: ClassVar[bool] = False


class AutoregressiveConfig(ObjectiveConfig, module="baselines"):
    """Left to right, with the exact likelihood."""

    kind: Literal["autoregressive"] = "autoregressive"
    has_time: ClassVar[bool] = False
    is_causal: ClassVar[bool] = True
    sampler: ClassVar[str | None] = "autoregressive"
