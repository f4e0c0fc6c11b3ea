"""Sampling: samplers, and a run's `sample`."""

import math
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from mdpipe.params.diffusion import ObjectiveConfig, TimeGrid
from mdpipe.params.fields import Positive
from mdpipe.params.registry import Config, KindConfig


class SamplerConfig(KindConfig, package="mdpipe.diffusion.samplers"):
    """Algorithm that replaces masks by tokens."""

    renamed_kinds: ClassVar[dict[str, str]] = {
        "reveal_first": "ancestral (and the old `ancestral` is `ancestral_stepwise`)",
        "confidence": "maskgit",
        "remasking": "remdm",
        "generalized": "genmd4_ancestral",
    }


class DiscreteTimeSamplerConfig(SamplerConfig):
    """A sampler that steps through a grid of times from 1 to 0."""

    steps: Positive = 128
    """Number of steps."""
    time_grid: TimeGrid = "cosine"
    """Spacing of the steps: even, or cosine, with small steps near t = 1, where most tokens are masked (eq. 6)."""
    renamed: ClassVar[dict[str, str]] = {"grid": "time_grid", "correctors": "num_corrector_steps"}


class PaperSamplerConfig(DiscreteTimeSamplerConfig):
    """A sampler of the paper."""

    decode: Literal["sample", "argmax"] = "sample"
    """Treatment of tokens that are still masked at time 0 (one in 10,000): sampled, which keeps the distribution of the
    reverse process, or replaced by the most likely token, as in the official implementation."""


class AncestralConfig(PaperSamplerConfig):
    """Ancestral sampling with all unmasking times sampled first: the exact distribution at a fraction of the cost."""

    kind: Literal["ancestral"] = "ancestral"


class AncestralStepwiseConfig(PaperSamplerConfig, module="ancestral"):
    """The plain reference: one categorical over vocabulary and mask per masked position and step (Alg. 2)."""

    kind: Literal["ancestral_stepwise"] = "ancestral_stepwise"


class TwoStageConfig(PaperSamplerConfig, module="ancestral"):
    """First predict every masked token, then choose which predictions to keep (Alg. 3)."""

    kind: Literal["two_stage"] = "two_stage"


class MaskGITSamplerConfig(DiscreteTimeSamplerConfig, module="baselines"):
    """MaskGIT's parallel decoding: keep the most confident predictions."""

    kind: Literal["maskgit"] = "maskgit"
    noise_scale: Annotated[float, Field(ge=0, lt=math.inf)] = 4.5
    """Scale of the Gumbel noise added to the confidence; it decreases with time. 4.5 is MaskGIT's."""


class ReMDMConfig(DiscreteTimeSamplerConfig, module="baselines"):
    """ReMDM: unmasked tokens may be masked again."""

    kind: Literal["remdm"] = "remdm"
    eta: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Fraction of the largest possible remasking probability; 0 is ancestral sampling."""


class PredictorCorrectorConfig(DiscreteTimeSamplerConfig, module="baselines"):
    """Ancestral steps, each followed by rounds of noising and denoising."""

    kind: Literal["predictor_corrector"] = "predictor_corrector"
    num_corrector_steps: Annotated[int, Field(ge=0)] = 1
    """Corrector steps after each step."""


class GenMD4AncestralConfig(DiscreteTimeSamplerConfig, module="ancestral"):
    """The sampler of GenMD4, whose unmasking probabilities depend on the token."""

    kind: Literal["genmd4_ancestral"] = "genmd4_ancestral"


class FirstHittingConfig(SamplerConfig, module="baselines"):
    """Continuous time: one token per network call, at the moment it is unmasked."""

    kind: Literal["first_hitting"] = "first_hitting"


class AutoregressiveSamplerConfig(SamplerConfig, module="baselines"):
    """The sampler of autoregressive models."""

    kind: Literal["autoregressive"] = "autoregressive"


Temperature = Annotated[float, Field(gt=0, lt=math.inf)]

DEFAULT_SAMPLER = "ancestral"
"""The sampler of objectives that do not name another: exact, and the fastest."""


def is_compatible(sampler: str, objective: type[ObjectiveConfig]) -> bool:
    """Return True if a run of the objective can be sampled by this kind of sampler."""
    if objective.sampler is not None:
        return sampler == objective.sampler
    owned = {other.sampler for other in ObjectiveConfig.kinds.values()}
    return sampler not in owned and SamplerConfig.find(sampler) is not None


def compatible_samplers(objective: type[ObjectiveConfig]) -> list[str]:
    """Return the built-in samplers that a run of the objective can be sampled by, its default first."""
    found = [kind for kind in SamplerConfig.kinds if is_compatible(kind, objective)]
    return sorted(found, key=lambda kind: kind != DEFAULT_SAMPLER)


def unfit(sampler: SamplerConfig, objective: ObjectiveConfig) -> str | None:
    """Return the rule that a sampler breaks which cannot sample from a run of the objective; None if it can."""
    if is_compatible(sampler.kind, type(objective)):
        return None
    return f"does not fit a run of {objective.kind}; allowed: {', '.join(compatible_samplers(type(objective)))}"


class SampleConfig(Config):
    """Number of samples, sampler, and choice of tokens."""

    count: Positive = 16
    """Number of samples."""
    sampler: SamplerConfig = AncestralConfig()
    """The sampler; it must fit the objective. By default the objective's own sampler, or `ancestral`."""
    temperature: Temperature = 1.0
    """Divides the logits: below 1 sharpens, above 1 flattens."""
    top_k: Positive | None = None
    """Sample from the k most likely tokens; null for all."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Sample from the smallest set of tokens with this total probability; null for all."""
    guidance_scale: Annotated[float, Field(ge=0, lt=math.inf)] | None = None
    """Scale s of classifier-free guidance for a class-conditional run, else null. Log-probabilities are (1 + s)
    conditional - s unconditional: 0 is the conditional model. The samples take the classes in turn."""
    renamed: ClassVar[dict[str, str]] = {"guidance": "guidance_scale", "steps": "sampler: {kind: KIND, steps: N}"}
