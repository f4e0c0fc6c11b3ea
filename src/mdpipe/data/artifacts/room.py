"""Room on the disk: asked for before a long stage begins, instead of found missing at its end."""

import shutil
import sys
from pathlib import Path

WORTH_SAYING = 10**8
"""Bytes, from which on a stage says what it will need."""


def require_room(place: Path, needed: int, what: str) -> None:
    """Say that so many bytes will be needed, and make sure that they fit where `place` is, or will be.

    Raises:
        ValueError: they do not; the message says how much is missing.
    """
    existing = next(folder for folder in (place, *place.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise ValueError(
            f"{what} needs about {needed / 1e9:,.2f} GB in {place}, where {free / 1e9:,.2f} GB are free: make room for"
            f" {(needed - free) / 1e9:,.2f} GB, or move the working copy to a larger disk"
        )
    if needed >= WORTH_SAYING:
        sys.stderr.write(f"{what} needs about {needed / 1e9:,.2f} GB of the disk's free {free / 1e9:,.2f} GB\n")
