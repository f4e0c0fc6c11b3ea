"""Which artifacts are of an older definition in params.yaml, by dvc.lock: a plan takes no sizes from them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from mdpipe.params.base import Section
from mdpipe.params.data import AnyDataset
from mdpipe.params.load import PARAMS_FILE
from mdpipe.params.sources import AnySource
from mdpipe.params.strict_yaml import StrictYAMLError, read_yaml

LOCK_FILE = Path("dvc.lock")
SECTIONS: Mapping[str, TypeAdapter[Any]] = {"sources": TypeAdapter(AnySource), "datasets": TypeAdapter(AnyDataset)}


def recorded_params() -> dict[str, dict[str, Any]]:
    """Return the params of each stage in dvc.lock by their keys; none where there is no such file, or it is broken."""
    try:
        stages = read_yaml(LOCK_FILE.read_bytes())["stages"]
        return {name: stage.get("params", {}).get(str(PARAMS_FILE), {}) for name, stage in stages.items()}
    except (FileNotFoundError, StrictYAMLError, TypeError, KeyError, AttributeError):
        return {}


def is_of_another(recorded: Mapping[str, Any], section: str, name: str, stated: Section) -> bool:
    """Return True if the recorded params of a stage have the key SECTION.NAME with another value than the stated."""
    key = f"{section}.{name}"
    if key not in recorded:
        return False
    try:
        return bool(SECTIONS[section].validate_python(recorded[key]) != stated)
    except ValidationError:
        return True
