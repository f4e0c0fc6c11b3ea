"""Params of the smoke preset with something wrong."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from mdpipe.params import ParamsError, parse_params

SMOKE = yaml.safe_load((Path(__file__).parents[2] / "workflow/presets/smoke.yaml").read_text())
POLYNOMIAL = {"runs.chars_md4.objective": {"kind": "md4", "schedule": {"kind": "polynomial"}}}
TEXTS = {
    "kind": "text",
    "path": "my",
    "sample_by": "document",
    "decode_errors": "strict",
    "empty_documents": "error",
    "detokenizer": None,
}


def error_of(change: dict[str, Any]) -> str:
    """Return the error of the smoke preset with some keys, given by their dotted paths, set to other values."""
    data = deepcopy(SMOKE)
    for path, value in change.items():
        *parents, last = path.split(".")
        section = data
        for key in parents:
            section = section.setdefault(key, {})
        section[last] = deepcopy(value)
    with pytest.raises(ParamsError) as error:
        parse_params(data, "params.yaml")
    return str(error.value)
