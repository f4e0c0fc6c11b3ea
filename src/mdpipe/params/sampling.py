"""How samples are drawn: the samplers and their settings in params.yaml."""

import inspect
from importlib import import_module
from typing import Annotated, Literal, get_args

from pydantic import Field

from mdpipe.kinds import find_kind, is_module
from mdpipe.params.base import Distinct, Name, Positive, Section
from mdpipe.params.diffusion import Grid
from mdpipe.params.own import OrOwn, own_kind, section_of

PACKAGE = "mdpipe.diffusion.samplers"
"""Where every kind of sampler has its file."""


class OnGrid(Section):
    """A sampler that walks a grid of `steps` times from 1 to 0."""

    grid: Grid
    """Spacing of the steps: even, or cosine, with small steps near t = 1, where most tokens are masked (eq. 6)."""


class PaperSampler(OnGrid):
    """One of the paper's samplers."""

    decode: Literal["sample", "argmax"] = "sample"
    """How to fill tokens that are still masked at time 0 (one in 10,000): sampled, which keeps the distribution of the
    reverse process, or by the most likely token, as in the official implementation."""


class Ancestral(PaperSampler):
    """The plain reference: one categorical over vocabulary and mask per masked position and step (Alg. 2)."""

    kind: Literal["ancestral"]


class TwoStage(PaperSampler):
    """First predict every masked token, then choose which predictions to keep (Alg. 3)."""

    kind: Literal["two_stage"]


class RevealFirst(PaperSampler):
    """Ancestral sampling with all unmasking times drawn first: the same distribution at a fraction of the cost."""

    kind: Literal["reveal_first"]


class Confidence(OnGrid):
    """MaskGIT's parallel decoding: keep the most confident predictions."""

    kind: Literal["confidence"]
    noise_scale: Annotated[float, Field(ge=0)]
    """Scale of the Gumbel noise added to the confidence; it decreases with time."""


class Remasking(OnGrid):
    """ReMDM: unmasked tokens may be masked again."""

    kind: Literal["remasking"]
    eta: Annotated[float, Field(ge=0, le=1)]
    """Fraction of the largest possible remasking probability; 0 is ancestral sampling."""


class PredictorCorrector(OnGrid):
    """Ancestral steps, each followed by rounds of noising and denoising."""

    kind: Literal["predictor_corrector"]
    correctors: Annotated[int, Field(ge=0)]
    """Corrector rounds after each step."""


class Generalized(OnGrid):
    """The sampler of GenMD4, whose unmasking probabilities depend on the token."""

    kind: Literal["generalized"]


class FirstHitting(Section):
    """Continuous time: one token per network call, at the moment it is unmasked."""

    kind: Literal["first_hitting"]


class LeftToRight(Section):
    """The sampler of autoregressive models."""

    kind: Literal["autoregressive"]


def _own_sampler(kind: str, sampler: type) -> type[Section]:
    walks = "grid" in inspect.signature(sampler).parameters
    return section_of(sampler, given=["steps"], named=own_kind(kind), base=OnGrid if walks else Section)


AnySampler = Annotated[
    Ancestral
    | TwoStage
    | RevealFirst
    | Confidence
    | Remasking
    | PredictorCorrector
    | Generalized
    | FirstHitting
    | LeftToRight,
    Field(discriminator="kind"),
    OrOwn("kind", PACKAGE, "Sampler", _own_sampler),
]


OWN_SAMPLERS = {"genmd4": "generalized", "autoregressive": "autoregressive"}
"""Objectives with a sampler of their own; all others take any of the rest."""

SECTIONS: tuple[type[Section], ...] = get_args(get_args(AnySampler)[0])
KINDS = [get_args(section.model_fields["kind"].annotation)[0] for section in SECTIONS]


def section_of_sampler(kind: str) -> type[Section]:
    """Return the section of a kind of sampler, which may be one's own.

    Raises:
        ValueError: there is no such kind.
    """
    if kind in KINDS:
        return SECTIONS[KINDS.index(kind)]
    base = import_module(f"{PACKAGE}.base").Sampler  # By name, and only now: this loads torch.
    return _own_sampler(kind, find_kind(PACKAGE, kind, base, "sample.sampler.kind"))


def samplers_for(objective: str) -> list[str]:
    """The kinds of sampler, of those that come with mdpipe, that a run of this objective can be sampled by."""
    return [kind for kind in KINDS if fits(kind, objective)]


def fits(sampler: str, objective: str) -> bool:
    """Whether a run of the objective can be sampled by the sampler, which may be one's own, as the objective may."""
    if objective in OWN_SAMPLERS:
        return sampler == OWN_SAMPLERS[objective]
    known = sampler in KINDS or is_module(PACKAGE, sampler)
    return known and sampler not in OWN_SAMPLERS.values()


class SampleSettings(Section):
    """How many samples are drawn, and how."""

    count: Positive
    """Number of samples."""
    sampler: AnySampler
    """How samples are drawn; it must fit the objective."""
    steps: Positive | None
    """Steps of the sampler; null for a sampler without a time grid."""
    temperature: Annotated[float, Field(gt=0)]
    """Divides the logits: below 1 sharpens, above 1 flattens."""
    top_k: Positive | None
    """Sample from the k most likely tokens; null for all."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None
    """Sample from the smallest set of tokens with this total probability; null for all."""
    guidance: Annotated[float, Field(ge=0)] | None
    """Scale s of classifier-free guidance for a class-conditional run, else null. Log-probabilities are (1 + s)
    conditional - s unconditional: 0 is the conditional model. The samples take the classes in turn."""


class Judged(Section):
    """What the samples of a run are scored by."""

    judge: str
    """Reference model: an autoregressive run on the same dataset, whose exact likelihood scores the samples."""
    dataset: str
    """The dataset of both; its held-out split is scored as well. DVC's templates need it here."""


class SamplerSuite(Section):
    """Compare samplers: quality against the number of network calls."""

    runs: dict[Name, Judged]
    """The runs to sample from, keys of `runs`, each with its reference model."""
    samplers: list[AnySampler]
    """The samplers, at most one of each kind."""
    steps: Annotated[list[Positive], Distinct]
    """Numbers of steps at which each sampler with a time grid is run."""
    count: Annotated[int, Field(ge=2)]
    """Samples per sampler and number of steps."""
