"""The samplers by the names that params.yaml gives them."""

from dataclasses import MISSING, fields
from typing import Any

from mdpipe.diffusion.samplers.ancestral import Ancestral
from mdpipe.diffusion.samplers.autoregressive import Autoregressive
from mdpipe.diffusion.samplers.base import Sampler
from mdpipe.diffusion.samplers.confidence import Confidence
from mdpipe.diffusion.samplers.first_hitting import FirstHitting
from mdpipe.diffusion.samplers.generalized import Generalized
from mdpipe.diffusion.samplers.predictor_corrector import PredictorCorrector
from mdpipe.diffusion.samplers.remasking import Remasking
from mdpipe.diffusion.samplers.reveal_first import RevealFirst
from mdpipe.diffusion.samplers.two_stage import TwoStage

SAMPLERS: dict[str, type[Sampler[Any]]] = {
    "ancestral": Ancestral,
    "two_stage": TwoStage,
    "reveal_first": RevealFirst,
    "first_hitting": FirstHitting,
    "confidence": Confidence,
    "remasking": Remasking,
    "predictor_corrector": PredictorCorrector,
    "generalized": Generalized,
    "autoregressive": Autoregressive,
}


def build_sampler(kind: str, **settings: Any) -> Sampler[Any]:
    """The sampler that params.yaml calls `kind`, with its settings there.

    Raises:
        ValueError: there is no such kind, a setting that it does not have or lacks, or a value that is not allowed.
    """
    if kind not in SAMPLERS:
        raise ValueError(f"sample.sampler.kind is {kind!r}; it must be one of {', '.join(sorted(SAMPLERS))}")
    known = {field.name: field.default is MISSING for field in fields(SAMPLERS[kind])}
    for name in settings:
        if name not in known:
            allowed = ", ".join(known) or "no settings"
            raise ValueError(f"sample.sampler.{name} is not a setting of {kind!r}, which takes {allowed}")
    for name, required in known.items():
        if required and name not in settings:
            raise ValueError(f"sample.sampler.{name} is missing; {kind!r} needs it")
    return SAMPLERS[kind](**settings)
