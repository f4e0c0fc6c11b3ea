"""Build an objective by its name in params.yaml."""

from typing import Any

from mdpipe.diffusion.objectives.base import Objective
from mdpipe.diffusion.schedules.build import build_schedule
from mdpipe.kinds import find_kind


def build_objective(kind: str, vocabulary: int, **settings: Any) -> Objective:
    """Build the objective that params.yaml calls `kind`, with its settings in `diffusion`.

    Args:
        kind: the name of its file.
        vocabulary: V.
        settings: the keys of the run's `diffusion`; `schedule` is a mapping, as in params.yaml.

    Raises:
        ValueError: if there is no such kind or schedule, or a setting is out of range.
    """
    if "schedule" in settings:
        settings["schedule"] = build_schedule(**settings["schedule"])
    return objective_class(kind)(vocabulary=vocabulary, **settings)


def objective_class(kind: str) -> type[Objective]:
    """Return the class of an objective.

    Raises:
        ValueError: if there is no such kind.
    """
    return find_kind("mdpipe.diffusion.objectives", kind, Objective, "objective")
