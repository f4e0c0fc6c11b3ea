"""Objectives by the name that params.yaml gives them."""

from typing import Any

from mdpipe.diffusion.objectives.any_order import AnyOrder
from mdpipe.diffusion.objectives.autoregressive import Autoregressive
from mdpipe.diffusion.objectives.base import Objective
from mdpipe.diffusion.objectives.d3pm import D3PM
from mdpipe.diffusion.objectives.genmd4 import GenMD4
from mdpipe.diffusion.objectives.maskgit import MaskGIT
from mdpipe.diffusion.objectives.md4 import MD4
from mdpipe.diffusion.objectives.sedd import SEDD
from mdpipe.diffusion.schedules import build_schedule

OBJECTIVES: dict[str, type[Objective]] = {
    "md4": MD4,
    "genmd4": GenMD4,
    "maskgit": MaskGIT,
    "sedd": SEDD,
    "d3pm": D3PM,
    "any_order": AnyOrder,
    "autoregressive": Autoregressive,
}


def build_objective(kind: str, vocabulary: int, **settings: Any) -> Objective:
    """The objective that params.yaml calls `kind`, with its settings in `diffusion`.

    Args:
        kind: a key of `OBJECTIVES`.
        vocabulary: V.
        settings: the keys of the run's `diffusion`; a `schedule` is a mapping, as in params.yaml.

    Raises:
        ValueError: there is no such kind or schedule, or a setting is out of range.
    """
    if kind not in OBJECTIVES:
        raise ValueError(f"objective is {kind!r}; it must be one of {', '.join(sorted(OBJECTIVES))}")
    if "schedule" in settings:
        settings["schedule"] = build_schedule(**settings["schedule"])
    return OBJECTIVES[kind](vocabulary=vocabulary, **settings)
