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


class PaperSampler(OnGrid):
    """One of the paper's samplers."""

    decode: Literal["sample", "argmax"] = "sample"
    """How tokens that the schedule's epsilon leaves masked at time 0 are filled: drawn, which keeps the distribution of
    the reverse process, or by the likeliest token, as in the official implementation."""


class Ancestral(PaperSampler):
    """One categorical over the vocabulary and the mask at every masked position and step (Alg. 2)."""

    kind: Literal["ancestral"]


class TwoStage(PaperSampler):
    """First a guess at every masked token, then which guesses stay (Alg. 3)."""

    kind: Literal["two_stage"]


class RevealFirst(PaperSampler):
    """Ancestral sampling with all reveal times drawn first: the same distribution for a fraction of the work."""

    kind: Literal["reveal_first"]


class Confidence(OnGrid):
    """MaskGIT's parallel decoding: the most confident guesses stay."""

    kind: Literal["confidence"]
    noise_scale: Annotated[float, Field(ge=0)]
    """How much Gumbel noise is added to the confidence at first; it falls with time."""


class Remasking(OnGrid):
    """ReMDM: revealed tokens may go back to the mask."""

    kind: Literal["remasking"]
    eta: Annotated[float, Field(ge=0, le=1)]
    """Share of the largest possible remasking probability; 0 is ancestral sampling."""


class PredictorCorrector(OnGrid):
    """Ancestral steps, each followed by rounds of noising and denoising."""

    kind: Literal["predictor_corrector"]
    correctors: Annotated[int, Field(ge=0)]
    """Rounds after a step."""


class Generalized(OnGrid):
    """The sampler of GenMD4, whose reveal probabilities depend on the token."""

    kind: Literal["generalized"]


class FirstHitting(Section):
    """Continuous time: one token a call, at the moment it is revealed."""

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
    sampler: AnySampler
    steps: Positive | None
    """Steps of the sampler's grid; null for a sampler without one."""
    temperature: Annotated[float, Field(gt=0)]
    top_k: Positive | None
    """Draw from the so many likeliest tokens alone; null for all."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None
    """Draw from the fewest tokens that hold this much probability; null for all."""
    guidance: Annotated[float, Field(ge=0)] | None
    """Scale s of classifier-free guidance where the run knows classes, which the samples then take in turn; else null.
    Log-probabilities are (1 + s) conditional - s unconditional: 0 is the conditional model."""


class Judged(Section):
    """What the samples of a run are compared with."""

    judge: str
    """An autoregressive run on the same dataset, whose exact likelihood says how likely the samples are."""
    dataset: str
    """The dataset of both, whose held-out split is judged as well. DVC's templates need it here."""


class SamplerSuite(Section):
    """The comparison of samplers: quality against network calls, on some of the runs."""

    runs: dict[Name, Judged]
    samplers: list[AnySampler]
    steps: Annotated[list[Positive], Distinct]
    """Lengths of grid that each sampler with a grid is tried at."""
    count: Annotated[int, Field(ge=2)]
    """Samples drawn each time."""
