"""Sources: where raw text and pictures come from, one module a kind."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from mdpipe.data.raw.writing import Part

BUNDLED = ("digits", "docstrings", "photos")
"""Kinds that come with the pinned packages."""
FETCHED = ("hub", "hub_images", "url")
"""Kinds that come over the network."""
LOCAL = (
    "arrays",
    "csv",
    "idx",
    "image_folder",
    "image_table",
    "image_tar",
    "jsonl",
    "planar_arrays",
    "table",
    "text_files",
)
"""Kinds that read the user's own files."""


def source_parts(kind: str, path: Path, downloads: Path, **settings: Any) -> Sequence[Part]:
    """The parts of a source, which can be read side by side.

    Args:
        kind: the module that knows it.
        path: the user's own files; bundled and fetched kinds do not look at it.
        downloads: where what is fetched is kept.
        settings: those of the kind in params.yaml.

    Raises:
        ValueError: no such kind, or the source cannot be read; the message names the file and the cure.
    """
    if kind not in BUNDLED + FETCHED + LOCAL:
        raise ValueError(f"sources.*.kind = {kind!r} is not one of {', '.join(sorted(BUNDLED + FETCHED + LOCAL))}")
    # Imported by name, so that a source needs only its own libraries.
    module = import_module(f"{__name__}.{kind}")
    given: list[Path] = [path] if kind in LOCAL else [downloads] if kind in FETCHED else []
    parts: Sequence[Part] = module.parts(*given, **settings)
    return parts
