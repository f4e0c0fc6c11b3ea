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


class Geometric(Section):
    """alpha(t) = exp(-beta_min^(1 - t) beta_max^t); the paper's figure has 1e-5 and 20."""

    kind: Literal["geometric"]
    beta_min: Annotated[float, Field(gt=0)]
    beta_max: Annotated[float, Field(gt=0)]


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


class MD4(Scheduled):
    """The paper's bound, weighted cross entropies at masked positions (eq 5)."""

    timesteps: Positive | None
    """Steps of the discrete-time bound, or null for continuous time."""
    grid: Grid
    """Where these steps are; continuous time has none."""
    masks: Positive
    """Mask draws an example and training step. GenMD4 needs two: a fair comparison gives MD4 as many."""


class GenMD4(Section):
    """Every token has a schedule of its own, 1 - (1 - epsilon) t^w, with a learned exponent w (Section 6)."""

    initial_exponent: Annotated[float, Field(gt=0)]
    exponent_learning_rate: LearningRate
    """Peak learning rate of the exponents; it follows the network's warm-up and decay."""
    timesteps: Positive | None
    """Steps of the discrete-time bound, or null for continuous time."""
    grid: Grid
    """Where these steps are; continuous time has none."""


class MaskGIT(Scheduled):
    """Unweighted cross entropy at exactly the schedule's share of masks (eq 28); bounded as MD4 is."""


class SEDD(Scheduled):
    """Score entropy of the absorbing process (eq 24), the scores' sum left free."""


class D3PM(Scheduled):
    """The discrete-time absorbing process with an auxiliary cross entropy."""

    timesteps: Positive
    auxiliary: Annotated[float, Field(ge=0)]
    """Weight of the auxiliary cross entropy in the loss; 0.001 in D3PM."""


class AnyOrder(Section):
    """The any-order autoregressive bound: a uniform number of masks, then a uniform set of so many."""


class Autoregressive(Section):
    """Left to right, with the exact likelihood."""
