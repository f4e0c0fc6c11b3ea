"""`mdpipe bench likelihood` on trained runs of text and images."""

import json
import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import Result

pytestmark = pytest.mark.slow


def test_the_estimators_agree_on_trained_runs(mdpipe: Callable[..., Result]) -> None:
    runs = ("--run", "chars_md4", "--run", "digits")
    done = mdpipe("bench", "likelihood", *runs, "--calls", 4, "--examples", 8, "--repeats", 3, "--json")
    assert done.exit_code == 0, done.output
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in json.loads(done.stdout)["results"]:
        rows[row["run"]].append(row)
    assert {run: len(found) for run, found in rows.items()} == {"chars_md4": 3, "digits": 3}
    for first, *others in rows.values():
        for other in others:
            error = math.hypot(first["value_stderr"], other["value_stderr"])
            assert abs(first["value"] - other["value"]) < 5 * error
