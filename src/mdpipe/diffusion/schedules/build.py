"""Schedules by the name that params.yaml gives them."""

from typing import Any

from mdpipe.diffusion.schedules.base import Schedule
from mdpipe.kinds import find_kind


def build_schedule(kind: str, **settings: Any) -> Schedule:
    """The schedule that params.yaml calls `kind`, with its other keys as settings.

    Raises:
        ValueError: there is no such kind, or a setting is out of range.
    """
    return find_kind("mdpipe.diffusion.schedules", kind, Schedule, "schedule.kind")(**settings)
