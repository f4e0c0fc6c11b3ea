"""A short name for all that something depends on: settings, files and code."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import mdpipe

LENGTH = 16
"""Hexadecimal digits kept: 64 bits, and short enough for a folder's name."""


def digest_of(stated: dict[str, Any], files: Iterable[Path]) -> str:
    """Hash of what can be written as JSON and of the files' bytes."""
    digest = hashlib.sha256(json.dumps(stated, sort_keys=True).encode())
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:LENGTH]


def code_files(parts: Iterable[str]) -> list[Path]:
    """The modules of these parts of the package."""
    package = Path(mdpipe.__file__).parent
    places = [package / part for part in parts]
    return sorted(path for place in places for path in ([place] if place.is_file() else place.rglob("*.py")))
