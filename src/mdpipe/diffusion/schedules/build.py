"""Build a schedule by its name in params.yaml."""

from typing import Any

from mdpipe.diffusion.schedules.base import Schedule
from mdpipe.kinds import find_kind


def build_schedule(kind: str, **settings: Any) -> Schedule:
    """Build the schedule that params.yaml calls `kind`, with its other keys as settings.

    Raises:
        ValueError: if there is no such kind, or a setting is out of range.
    """
    return find_kind("mdpipe.diffusion.schedules", kind, Schedule, "schedule.kind")(**settings)
