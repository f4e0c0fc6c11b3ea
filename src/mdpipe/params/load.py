"""Reading params.yaml: every problem is told with the key's path, the value and what is allowed."""

import json
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from mdpipe.params.root import Params

PARAMS_FILE = Path("params.yaml")


class ParamsError(ValueError):
    """params.yaml is not what the pipeline can run; the text says where, what and what is allowed."""


class _Loader(yaml.SafeLoader):
    """YAML as DVC reads it: `1e-3` is a number (YAML 1.2), and a key that stands twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = key_node.value
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands here a second time", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def load_params(path: Path = PARAMS_FILE) -> Params:
    """Read and check a params file.

    Raises:
        ParamsError: the file is missing, is no YAML, or says something that cannot be run.
    """
    return parse_params(read_params(path), name=str(path))


def read_params(path: Path = PARAMS_FILE) -> Any:
    """Return the content of a params file without checking what it asks for.

    Raises:
        ParamsError: the file is missing or is not valid YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ParamsError(
            f"{path} is missing: run from the repository's root, or take a preset:"
            f" cp workflow/presets/smoke.yaml {path}"
        ) from None
    except UnicodeDecodeError as error:
        raise ParamsError(f"{path} is not UTF-8 text: {error}") from None
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ParamsError(f"{path} is not valid YAML: {error}") from None


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
            return f"{_path([*keys, str(part)])}: is missing"
        # Else the part is the tag of a union ("transformer"), which is no key of the file.
    message = problem["msg"].removeprefix("Value error, ")
    if isinstance(value, dict) or problem["type"] == "unknown_keys":
        return f"{_path(keys)}: {message}"
    return f"{_path(keys)}: {value!r} is refused: {message}"


def _path(keys: list[str]) -> str:
    return ".".join(keys) or "top level"
