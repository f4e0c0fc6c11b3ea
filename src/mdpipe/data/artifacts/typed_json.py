"""JSON files of an artifact whose every key has a type: what comes from elsewhere is refused in a sentence."""

import json
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from mdpipe.data.artifacts.stable_json import read_json


class Header(BaseModel):
    """The content of a JSON file: all keys, of exactly these types, and no others."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


H = TypeVar("H", bound=Header)


def read_typed_json(path: Path, header: type[H], cure: str) -> H:
    """Read a JSON object and check every key.

    Raises:
        ValueError: the file is missing or broken, or a key is missing, unknown or of another type; the message names
            the first such key and ends with `cure`.
    """
    content = read_json(path, cure)
    try:
        return header.model_validate_json(json.dumps(content))  # As JSON: a list is a tuple there.
    except ValidationError as error:
        raise ValueError(f"{path}: {first_problem(error)}; {cure}") from None


def first_problem(error: ValidationError) -> str:
    """Return the first thing that a validation found, in one line: `shape: Field required`."""
    problem = error.errors(include_url=False)[0]
    where = ".".join(map(str, problem["loc"]))
    message = problem["msg"].removeprefix("Value error, ")
    value = "" if problem["type"] == "missing" else f" = {problem['input']!r}"
    return f"{where}{value}: {message}" if where else message
