"""Read params.yaml, check it and write it with all defaults filled in."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from mdpipe.params.errors import problem_lines
from mdpipe.params.root import Params
from mdpipe.params.strict_yaml import StrictYAMLError, read_yaml

PARAMS_FILE = Path("params.yaml")
REPLICATES_FILE = Path("params.replicates.yaml")
"""The runs that `seeds` adds to those of params.yaml, made by the stage `resolve`: DVC reads both for its templates."""
RESOLVED_PARAMS_FILE = Path("params.resolved.yaml")
"""The same with all defaults filled in, made by the stage `resolve`: the stages that DVC runs read this file."""


class ParamsError(ValueError):
    """params.yaml is invalid; the message has the key, the value and the allowed values."""


def load_params(path: Path = PARAMS_FILE) -> Params:
    """Read and check a params file.

    Raises:
        ParamsError: the file is missing, is not valid YAML, or has settings that cannot be run.
    """
    return parse_params(read_params(path), name=str(path))


def read_params(path: Path = PARAMS_FILE) -> Any:
    """Return the content of a params file without checking its settings.

    Raises:
        ParamsError: the file is missing, is not valid YAML or means one thing to YAML 1.1 and another to 1.2.
    """
    try:
        return read_yaml(path.read_bytes())
    except FileNotFoundError:
        raise ParamsError(
            f"{path} is missing: run from the repository's root, or take a preset:"
            f" cp workflow/presets/smoke.yaml {path}"
        ) from None
    except IsADirectoryError:
        raise ParamsError(f"{path} is a folder; name the params file in it, such as {path / PARAMS_FILE}") from None
    except StrictYAMLError as error:
        raise ParamsError(f"{path}: {error}") from None


def parse_assignments(option: str, texts: Iterable[str]) -> dict[str, tuple[str, Any]]:
    """Return how each KEY=VALUE of an option was given, and its value as in a params file, by key.

    Raises:
        ParamsError: one sets nothing, or its value is not valid YAML, or ambiguous; the message names the option.
    """
    given = {}
    for assignment in texts:
        key, sign, text = assignment.partition("=")
        if not sign:
            raise ParamsError(f"{option} {assignment} sets nothing; write {option} KEY=VALUE")
        try:
            given[key] = (f"{option} {assignment}", read_yaml(text.encode()))
        except StrictYAMLError as error:
            raise ParamsError(f"{option} {assignment}: {error}; quote a text that has signs of YAML in it") from None
    return given


def parse_params(data: Any, name: str = "params") -> Params:
    """Check the content of a params file, and give a run with `seeds` one run per seed.

    Raises:
        ParamsError: with one line per problem, which begins with `name`.
    """
    try:
        return Params.model_validate(data).with_replicates()
    except ValidationError as error:
        raise ParamsError("\n".join(f"{name}: {line}" for line in problem_lines(error, data))) from None


def dump_params(params: Params) -> str:
    """Return params as YAML, with all defaults filled in."""
    note = f"# {PARAMS_FILE} with all defaults filled in, written by the stage `resolve`. Edit {PARAMS_FILE} instead.\n"
    return note + yaml.safe_dump(params.model_dump(mode="json"), sort_keys=False, width=120, default_flow_style=None)


def dump_replicates(params: Params, stated: Any) -> str:
    """Return as YAML what DVC's templates need of the runs that `seeds` adds.

    Args:
        params: the params, with a run for each seed.
        stated: the content of params.yaml. What it has itself is left out, since DVC accepts no key twice.
    """
    zero_shot, measured = ((stated.get(key) or {}).get("runs") or {} for key in ("zero_shot", "image_quality"))
    added = {
        "runs": {name: {"dataset": run.dataset} for name, run in params.runs.items() if name not in stated["runs"]},
        "zero_shot": {"runs": {name: None for name in params.zero_shot.runs if name not in zero_shot}},
        "image_quality": {
            "runs": {
                name: {"features": run.features, "dataset": run.dataset}
                for name, run in params.image_quality.runs.items()
                if name not in measured
            }
        },
    }
    note = (
        f"# The runs that `seeds` adds to those of {PARAMS_FILE}, written by the stage `resolve` for DVC's templates.\n"
    )
    return note + yaml.safe_dump(added, sort_keys=False, width=120)


def json_schema() -> str:
    """Return the JSON Schema of params.yaml, for editors."""
    return json.dumps(Params.model_json_schema(), indent=1, sort_keys=True) + "\n"
