"""Masking schedules and objectives."""

import math
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from mdpipe.params.errors import Keys
from mdpipe.params.kinds import AnyKind, KindConfig, Positive

TimeGrid = Literal["uniform", "cosine"]
"""Spacing of the times: even, or small steps near time 1, where most is masked (eq. 6)."""
EPSILON = 1e-4
"""Fraction of tokens masked at time 0 and unmasked at time 1 (App. J.1); it keeps the weight finite."""


class ScheduleConfig(KindConfig, package="mdpipe.diffusion.schedules", is_family=True):
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

    def broken_rules(self) -> Iterator[tuple[Keys, str]]:
        """Yield that the noise does not grow."""
        if self.beta_min >= self.beta_max:
            yield ("beta_min",), f"must be below beta_max = {self.beta_max:g}"


class CosineConfig(ScheduleConfig):
    """alpha(t) = 1 - cos(pi/2 (1 - t))."""

    kind: Literal["cosine"] = "cosine"


AnySchedule = Annotated[ScheduleConfig, AnyKind(ScheduleConfig)]


class ObjectiveConfig(KindConfig, package="mdpipe.diffusion.objectives", is_family=True):
    """Training loss and likelihood bound."""

    has_time: ClassVar[bool] = True
    """False if the denoiser is not given a time."""
    is_causal: ClassVar[bool] = False
    """True if the denoiser must be causal."""
    sampler: ClassVar[str | None] = None
    """The one sampler of the objective; None for all samplers that belong to no other objective."""


class ScheduledConfig(ObjectiveConfig):
    """An objective under a fixed masking schedule."""

    schedule: AnySchedule = LinearConfig()
    """Rate at which tokens are masked as time runs from 0 to 1 (Table 4)."""


class DiscreteTimeConfig(ObjectiveConfig):
    """An objective in continuous time or in T steps."""

    timesteps: Positive | None = None
    """Steps of the discrete-time bound, or null for continuous time."""
    time_grid: TimeGrid = "uniform"
    """Spacing of these steps: even, or cosine, with small steps near t = 1 (eq. 6). Unused in continuous time."""
    renamed: ClassVar[dict[str, str]] = {"grid": "time_grid", "masks": "num_mask_samples"}


class MD4Config(DiscreteTimeConfig, ScheduledConfig):
    """The paper's bound, weighted cross entropies at masked positions (eq. 5)."""

    kind: Literal["md4"] = "md4"
    num_mask_samples: Positive = 1
    """Mask samples per example and training step. GenMD4 needs two; give MD4 two in a fair comparison with it."""


class GenMD4Config(DiscreteTimeConfig):
    """One schedule per token, 1 - (1 - epsilon) t^w, with a learned exponent w (Section 6)."""

    kind: Literal["genmd4"] = "genmd4"
    initial_exponent: Annotated[float, Field(gt=0, lt=math.inf)] = 1.0
    """Value of every exponent w before training; 1 is the linear schedule."""
    exponent_learning_rate: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Peak learning rate of the exponents, which follows the network's warm-up and decay; null for the network's."""
    epsilon: Annotated[float, Field(ge=0, lt=1)] = EPSILON
    """Fraction of each token that is unmasked at time 1."""
    sampler: ClassVar[str | None] = "genmd4_ancestral"


class MaskGITConfig(ScheduledConfig):
    """Unweighted cross entropy at exactly the masked fraction of the schedule (eq. 28); evaluated by MD4's bound."""

    kind: Literal["maskgit"] = "maskgit"
    module: ClassVar[str | None] = "baselines"


class SEDDConfig(ScheduledConfig):
    """Score entropy of the absorbing process (eq. 24), without normalizing the scores."""

    kind: Literal["sedd"] = "sedd"
    module: ClassVar[str | None] = "baselines"


class D3PMConfig(ScheduledConfig):
    """The discrete-time absorbing process with an auxiliary cross entropy."""

    kind: Literal["d3pm"] = "d3pm"
    module: ClassVar[str | None] = "baselines"
    timesteps: Positive = 1000
    """Steps of the discrete-time process; D3PM's default."""
    auxiliary: Annotated[float, Field(ge=0, lt=math.inf)] = 0.001
    """Weight of the auxiliary cross entropy in the loss; D3PM's default."""


class AnyOrderConfig(ObjectiveConfig):
    """The any-order autoregressive bound: a uniform number of masks, then a uniform set of that size."""

    kind: Literal["any_order"] = "any_order"
    module: ClassVar[str | None] = "baselines"
    has_time: ClassVar[bool] = False


class AutoregressiveConfig(ObjectiveConfig):
    """Left to right, with the exact likelihood."""

    kind: Literal["autoregressive"] = "autoregressive"
    module: ClassVar[str | None] = "baselines"
    has_time: ClassVar[bool] = False
    is_causal: ClassVar[bool] = True
    sampler: ClassVar[str | None] = "autoregressive"


AnyObjective = Annotated[ObjectiveConfig, AnyKind(ObjectiveConfig)]
