"""Read params.yaml; every problem is reported with the key's path, the value and what is allowed."""

import json
import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from mdpipe.params.problems import Missing
from mdpipe.params.root import Params
from mdpipe.params.strict_yaml import StrictYAMLError, dotted, read_yaml
from mdpipe.params.wording import in_yaml, rule_of

PARAMS_FILE = Path("params.yaml")
RESOLVED_PARAMS_FILE = Path("params.resolved.yaml")
"""The same with all defaults filled in, made by the stage `resolve`: the stages that DVC runs read this file."""

EXAMPLES = "docs/data.md, README.md and workflow/presets have examples"
EMPTY = {
    "dict_type": "write {} if there shall be nothing",
    "list_type": "write [] if there shall be nothing",
    "section": EXAMPLES,
    "kind": EXAMPLES,
}
"""What to do about a section without a value, by the type of the problem."""

DEPENDENT_DEFAULT = "default_factory_not_called"
"""Pydantic's problem of a default that depends on a setting with a problem."""

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
    except IsADirectoryError:
        raise ParamsError(f"{path} is a folder; name the params file in it, such as {path / PARAMS_FILE}") from None
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
        raise ParamsError("\n".join(f"{name}: {line}" for line in problem_lines(error, data))) from None


def problem_lines(error: ValidationError, data: Any) -> list[str]:
    """Return a line for each problem of a mapping: its key, its value and what is allowed there."""
    # A default that depends on a refused setting is no problem of its own.
    problems = [found for found in error.errors(include_url=False) if found["type"] != DEPENDENT_DEFAULT]
    return [_describe(problem, data) for problem in problems]


def dump_params(params: Params) -> str:
    """Return params as YAML, with all defaults filled in."""
    note = f"# {PARAMS_FILE} with all defaults filled in, written by the stage `resolve`. Edit {PARAMS_FILE} instead.\n"
    return note + yaml.safe_dump(params.model_dump(mode="json"), sort_keys=False, width=120, default_flow_style=None)


def json_schema() -> str:
    """JSON Schema of params.yaml, for editors."""
    return json.dumps(Params.model_json_schema(), indent=1, sort_keys=True) + "\n"


def _describe(problem: Any, data: Any) -> str:
    """Return a line such as `runs.chars_md4.train.steps: 0 is refused: must be at least 1`."""
    keys, value, is_tagged = [], data, False
    for part in problem["loc"]:
        if not is_tagged and isinstance(value, dict) and part in (value.get("kind"), value.get("objective")):
            is_tagged = True  # The tag of a union comes before the keys, of which one may have the same name ("url").
        elif part in (value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()):
            keys.append(str(part))
            value, is_tagged = value[part], False
        # Else the part is another tag ("image"), which is no key of the file.
    given = problem["input"]
    message = rule_of(problem["type"], problem["msg"], problem.get("ctx", {}), given)
    if isinstance(given, Missing):
        note = " ".join((given.note or "").split()).partition(". ")[0].rstrip(".")
        note = f" ({note})" if note else ""
        return f"{dotted([*keys, given.key])}: is missing; {message}{', or null' * given.may_be_null}{note}"
    if value is None and problem["type"] in EMPTY:
        rule = "" if problem["type"] in ("dict_type", "list_type") else f"{message}; "
        return f"{dotted(keys)}: is empty; {rule}{EMPTY[problem['type']]}"
    if problem["loc"][-1:] == ("[key]",):
        return f"{dotted(keys)}: the name {_shortened(repr(given))} is refused: {message}"
    if isinstance(value, dict) or problem["type"] == "unknown_keys":
        return f"{dotted(keys)}: {message}"
    shown = in_yaml(given if value is None else value)  # Of a name without a value, the name.
    if keys[-1:] == ["url"] or "://" in shown:
        if not (found := SHOWN_URL.fullmatch(str(value))):
            return f"{dotted(keys)}: is refused (it is not shown, since it may hold a password): {message}"
        shown = repr(found[1] + found[2])
    return f"{dotted(keys)}: {_shortened(shown)} is refused: {message}"


def _shortened(text: str) -> str:
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."
