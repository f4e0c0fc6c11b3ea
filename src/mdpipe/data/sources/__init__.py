"""Sources: where raw text and pictures come from, one module a kind."""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from mdpipe.data.raw import Document, Pictures

BUNDLED = ("digits", "docstrings", "photos")
"""Kinds that come with the pinned packages."""
LOCAL = ("arrays", "image_folder", "jsonl", "text_files")
"""Kinds that read the user's own files."""


def read_source(kind: str, path: Path, **settings: Any) -> Iterator[Document] | Pictures:
    """Read a source: `settings` are those of its kind in params.yaml; bundled kinds do not look at the path.

    Documents come sorted by name. They are read while they are iterated over, and that is also when a broken one is
    found.

    Raises:
        ValueError: no such kind, or the source cannot be read; the message names the file and the cure.
    """
    if kind not in BUNDLED + LOCAL:
        raise ValueError(f"sources.*.kind = {kind!r} is not one of {', '.join(sorted(BUNDLED + LOCAL))}")
    # Imported by name, so that a source needs only its own libraries.
    module = import_module(f"mdpipe.data.sources.{kind}")
    material: Iterator[Document] | Pictures = (
        module.read(**settings) if kind in BUNDLED else module.read(path, **settings)
    )
    return material
