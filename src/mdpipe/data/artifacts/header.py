"""JSON headers with typed keys."""

import json
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mdpipe.data.artifacts.files import read_json


class Header(BaseModel):
    """Content of a JSON file: exactly these keys, with exactly these types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


H = TypeVar("H", bound=Header)
Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[int, Field(ge=0)]


class DatasetHeader(Header):
    """dataset.json; `EncodedDataset` documents its keys."""

    modality: Literal["text", "image"]
    tokenizer: str
    vocab_size: Positive
    shape: tuple[Positive] | tuple[Positive, Positive, Positive]
    seq_len: Positive
    classes: NonNegative
    drop_last: bool
    wrap_ids: tuple[NonNegative, ...]
    splits: dict[str, dict[str, int]]
    """The counts of each split."""
    class_names: tuple[str, ...] = ()


def read_header(path: Path, header: type[H], hint: str) -> H:
    """Read a JSON object and check every key.

    Raises:
        ValueError: the file is missing or broken, or a key is missing, unknown or of another type; the message names
            the first such key and ends with `hint`.
    """
    content = read_json(path, hint)
    try:
        return header.model_validate_json(json.dumps(content))  # As JSON: a list is a tuple there.
    except ValidationError as error:
        raise ValueError(f"{path}: {first_problem(error)}; {hint}") from None


def first_problem(error: ValidationError) -> str:
    """Return the first problem of a validation, in one line: `shape: Field required`."""
    problem = error.errors(include_url=False)[0]
    where = ".".join(map(str, problem["loc"]))
    message = problem["msg"].removeprefix("Value error, ")
    value = "" if problem["type"] == "missing" else f" = {problem['input']!r}"
    return f"{where}{value}: {message}" if where else message
