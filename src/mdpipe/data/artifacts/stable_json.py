"""JSON files with stable bytes: sorted keys, two spaces, one newline at the end."""

import json
from pathlib import Path
from typing import Any


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a mapping so that equal content always makes equal bytes."""
    path.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path, cure: str) -> dict[str, Any]:
    """Read a mapping written by `write_json`.

    Raises:
        ValueError: the file is missing, broken or no mapping; the message ends with `cure`.
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist; {cure}") from None
    except ValueError as error:
        raise ValueError(f"{path} is broken ({error}); {cure}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} should hold a JSON object, not {type(content).__name__}; {cure}")  # noqa: TRY004
    return content
