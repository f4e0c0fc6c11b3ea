"""What a run learns: its objective and the settings of it, the `diffusion` of a run in params.yaml."""

from typing import Annotated, Literal

from pydantic import Field

from mdpipe.params.base import Positive, Section
from mdpipe.params.own import OrOwn, own_kind, section_of

Grid = Literal["uniform", "cosine"]
"""Spacing of the times: even, or small steps near time 1, where most is masked (eq 6)."""

LearningRate = Annotated[float, Field(gt=0, lt=1)]


class Linear(Section):
    """alpha(t) = 1 - t."""

    kind: Literal["linear"]


class Polynomial(Section):
    """alpha(t) = 1 - t^exponent."""

    kind: Literal["polynomial"]
    exponent: Annotated[float, Field(ge=1)]
    """The power w of t; 1 is the linear schedule."""


class Geometric(Section):
    """alpha(t) = exp(-beta_min^(1 - t) beta_max^t); the paper's figure has 1e-5 and 20."""

    kind: Literal["geometric"]
    beta_min: Annotated[float, Field(gt=0)]
    """Noise at t = 0: alpha(0) = exp(-beta_min)."""
    beta_max: Annotated[float, Field(gt=0)]
    """Noise at t = 1: alpha(1) = exp(-beta_max)."""


class Cosine(Section):
    """alpha(t) = 1 - cos(pi/2 (1 - t))."""

    kind: Literal["cosine"]


def _own_schedule(kind: str, schedule: type) -> type[Section]:
    return section_of(schedule, given=["epsilon"], named=own_kind(kind))


AnySchedule = Annotated[
    Linear | Polynomial | Geometric | Cosine,
    Field(discriminator="kind"),
    OrOwn("kind", "mdpipe.diffusion.schedules", "Schedule", _own_schedule),
]
"""How fast tokens turn into the mask as time runs from 0 to 1 (Table 4 of the paper)."""


class Scheduled(Section):
    """An objective under a fixed masking schedule."""

    schedule: AnySchedule
    """How fast tokens are masked as time runs from 0 to 1 (Table 4 of the paper)."""


class MD4(Scheduled):
    """The paper's bound, weighted cross entropies at masked positions (eq 5)."""

    timesteps: Positive | None
    """Steps of the discrete-time bound, or null for continuous time."""
    grid: Grid
    """Spacing of these steps: even, or cosine, with small steps near t = 1 (eq. 6). Unused in continuous time."""
    masks: Positive
    """Mask samples per example and training step. GenMD4 needs two; give MD4 two in a fair comparison with it."""


class GenMD4(Section):
    """One schedule per token, 1 - (1 - epsilon) t^w, with a learned exponent w (Section 6)."""

    initial_exponent: Annotated[float, Field(gt=0)]
    """Value of every exponent w before training; 1 is the linear schedule."""
    exponent_learning_rate: LearningRate
    """Peak learning rate of the exponents; it follows the network's warm-up and decay."""
    timesteps: Positive | None
    """Steps of the discrete-time bound, or null for continuous time."""
    grid: Grid
    """Spacing of these steps: even, or cosine, with small steps near t = 1 (eq. 6). Unused in continuous time."""


class MaskGIT(Scheduled):
    """Unweighted cross entropy at exactly the masked fraction of the schedule (eq. 28); evaluated by MD4's bound."""


class SEDD(Scheduled):
    """Score entropy of the absorbing process (eq 24), the scores' sum left free."""


class D3PM(Scheduled):
    """The discrete-time absorbing process with an auxiliary cross entropy."""

    timesteps: Positive
    """Steps of the discrete-time process."""
    auxiliary: Annotated[float, Field(ge=0)]
    """Weight of the auxiliary cross entropy in the loss; 0.001 in D3PM."""


class AnyOrder(Section):
    """The any-order autoregressive bound: a uniform number of masks, then a uniform set of that size."""


class Autoregressive(Section):
    """Left to right, with the exact likelihood."""
