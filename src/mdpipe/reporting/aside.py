"""Files that appear whole or not at all: written beside their place and renamed into it."""

from pathlib import Path


def write_aside(path: Path, content: bytes) -> None:
    """Put `content` at `path`; whoever reads it meanwhile sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)
