"""Reading params.yaml: every problem is told with the key's path, the value and what is allowed."""

import json
import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mdpipe.params.root import Params
from mdpipe.params.strict_yaml import StrictYAMLError, dotted, read_yaml

PARAMS_FILE = Path("params.yaml")

EMPTY = {
    "dict_type": "write {} if there shall be nothing",
    "list_type": "write [] if there shall be nothing",
    "model_type": "docs/data.md, README.md and workflow/presets have examples",
}
"""What to do about a section without a value, by the type of pydantic's problem."""

MOST_SHOWN = 200
"""Characters of a value in an error."""

SHOWN_URL = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*://)(?:[^\s/?#@'\"<>]*@)?([^\s?#@'\"<>]*)(?:[?#][^\s@'\"<>]*)?")
"""A URL whose user, password and query are where they should be, so that an error can leave them out."""


class ParamsError(ValueError):
    """params.yaml is not what the pipeline can run; the text says where, what and what is allowed."""


def load_params(path: Path = PARAMS_FILE) -> Params:
    """Read and check a params file.

    Raises:
        ParamsError: the file is missing, is no YAML, or says something that cannot be run.
    """
    return parse_params(read_params(path), name=str(path))


def read_params(path: Path = PARAMS_FILE) -> Any:
    """Return the content of a params file without checking what it asks for.

    Raises:
        ParamsError: the file is missing, is not valid YAML or means one thing to YAML 1.1 and another to 1.2.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ParamsError(
            f"{path} is missing: run from the repository's root, or take a preset:"
            f" cp workflow/presets/smoke.yaml {path}"
        ) from None
    try:
        return read_yaml(content)
    except StrictYAMLError as error:
        raise ParamsError(f"{path}: {error}") from None


def parse_value(text: str, name: str) -> Any:
    """Return the value that a text has in a params file: 1e-3 is a number, null is None.

    Raises:
        ParamsError: the text is not valid YAML, or ambiguous; the message begins with `name`.
    """
    try:
        return read_yaml(text.encode())
    except StrictYAMLError as error:
        raise ParamsError(f"{name}: {error}; quote a text that has signs of YAML in it") from None


def parse_params(data: Any, name: str = "params") -> Params:
    """Check what a params file holds; `name` stands before each problem.

    Raises:
        ParamsError: with one line a problem.
    """
    try:
        return Params.model_validate(data)
    except ValidationError as error:
        lines = [f"{name}: {_describe(problem, data)}" for problem in error.errors(include_url=False)]
        raise ParamsError("\n".join(lines)) from None


def json_schema() -> str:
    """JSON Schema of params.yaml, for editors."""
    return json.dumps(Params.model_json_schema(), indent=1, sort_keys=True) + "\n"


def _describe(problem: Any, data: Any) -> str:
    """`runs.letters.train.steps: 0 is refused: Input should be greater than or equal to 1`."""
    keys, value = [], data
    for part in problem["loc"]:
        if part in (value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()):
            keys.append(str(part))
            value = value[part]
        elif problem["type"] == "missing" and part == problem["loc"][-1]:
            return f"{dotted([*keys, str(part)])}: is missing"
        # Else the part is the tag of a union ("transformer"), which is no key of the file.
    message = problem["msg"].removeprefix("Value error, ")
    if value is None and problem["type"] in EMPTY:
        return f"{dotted(keys)}: is empty; {EMPTY[problem['type']]}"
    if isinstance(value, dict) or problem["type"] == "unknown_keys":
        return f"{dotted(keys)}: {message}"
    shown = repr(value)
    if keys[-1:] == ["url"] or "://" in shown:
        if not (found := SHOWN_URL.fullmatch(str(value))):
            return f"{dotted(keys)}: is refused (it is not shown, since it may hold a password): {message}"
        shown = repr(found[1] + found[2])
    return f"{dotted(keys)}: {_shortened(shown)} is refused: {message}"


def _shortened(text: str) -> str:
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."
