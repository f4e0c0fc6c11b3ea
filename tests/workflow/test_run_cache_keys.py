"""DVC's run cache tells all params apart: it restores outputs for the command, dependencies and params of a stage."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.stage.cache import _get_cache_hash
from dvc_data.hashfile.meta import Meta
from pydantic import TypeAdapter, ValidationError

from mdpipe.params.fields import KEYS_WITHOUT_EFFECT, Name, RunName
from mdpipe.params.registry import Config

RESOLVED = yaml.safe_load((Path(__file__).parents[2] / "params.resolved.yaml").read_text())


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values without further keys."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield from leaves(part, (*path, key))
    if not items:
        yield path


def changed(value: Any, path: tuple[Any, ...]) -> Any:
    """The value with another leaf at the path."""
    if not path:
        return "another value"
    key, *rest = path
    items = dict(enumerate(value)) if isinstance(value, list) else value
    new = items | {key: changed(items[key], tuple(rest))}
    return list(new.values()) if isinstance(value, list) else new


def cache_key(params: Any) -> str:
    """DVC's key of a stage that watches these params."""
    return _get_cache_hash({"cmd": "stage", "deps": [], "params": {"params.resolved.yaml": params}})


def test_every_change_of_a_parameter_changes_the_key():
    paths = [*leaves(RESOLVED)]
    assert len(paths) > 100
    keys = {cache_key(changed(RESOLVED, path)) for path in paths}
    assert len(keys | {cache_key(RESOLVED)}) == len(paths) + 1


def test_the_ignored_keys_are_those_of_dvc():
    assert {Meta.PARAM_SIZE, Meta.PARAM_NFILES} == KEYS_WITHOUT_EFFECT
    for key in KEYS_WITHOUT_EFFECT:
        assert cache_key({"datasets.digits": {key: 8}}) == cache_key({"datasets.digits": {key: 16}})


@pytest.mark.parametrize("key", sorted(KEYS_WITHOUT_EFFECT))
def test_ignored_keys_are_refused_as_settings_and_names(key):
    with pytest.raises(TypeError, match=f"ignores keys called {key}; rename this setting of Own"):
        type("Own", (Config,), {"__annotations__": {key: int}})
    for name in (Name, RunName):
        with pytest.raises(ValidationError, match="is a key that DVC's run cache ignores; choose another name"):
            TypeAdapter(name).validate_python(key)
