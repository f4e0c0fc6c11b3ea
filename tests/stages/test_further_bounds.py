"""Further bounds of a trained model, by other schedules or in steps, in the array of its evaluation."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mdpipe.params import Params, ParamsError, parse_params
from mdpipe.pipeline import paths
from mdpipe.stages.evaluate import evaluate

RUN = "chars_md4"


def with_bounds(params: Params, run: str, **bounds: Any) -> Params:
    """Return the params with further bounds of a run."""
    data = params.model_dump(mode="json")
    data["runs"][run]["evaluate"]["bounds"] = bounds
    return parse_params(data)


def test_further_bounds_follow_the_runs_own(params: Params, place: Path) -> None:
    """Two estimates by the run's own objective are independent, and differ from its value by their errors only."""
    before = np.load(paths.evaluation(RUN))
    record = paths.record("evaluate", RUN).read_bytes()
    evaluate(
        with_bounds(params, RUN, own={"objective": "md4"}, one={"objective": {"kind": "md4", "timesteps": 1}}), RUN
    )
    after = np.load(paths.evaluation(RUN))
    assert (before.shape[1], after.shape[1]) == (3, 7)
    assert np.array_equal(after[:, :3], before)
    assert paths.record("evaluate", RUN).read_bytes() == record
    tokens, shown = after[:, 1].sum() * math.log(2), json.loads(paths.metrics("evaluate", RUN).read_bytes())
    own, one = after[:, 3:5], after[:, 5:7]
    error = (own[:, 0] - own[:, 1]).std() * math.sqrt(len(own)) / tokens
    its_error = (shown | json.loads(record))["stderr_mc"]
    assert error > 0
    assert abs(own.sum(0)[0] - own.sum(0)[1]) / tokens < 4 * error
    assert own.mean(1).sum() / tokens == pytest.approx(shown["value"], abs=4 * math.hypot(error, its_error))
    # In one step, all tokens are predicted from nothing: by both estimates the same, from masks only.
    assert one[:, 0] == pytest.approx(one[:, 1], rel=1e-3)


def test_a_causal_run_has_no_bounds_of_masks(params: Params) -> None:
    with pytest.raises(ParamsError, match=r"runs.chars_ar.evaluate.bounds: .*predicts no masked tokens: must be empty"):
        with_bounds(params, "chars_ar", own={"objective": "md4"})


def test_a_bound_with_learned_parameters_is_refused(params: Params) -> None:
    with pytest.raises(ParamsError, match=r"bounds.learned.objective: .*must be one of"):
        with_bounds(params, RUN, learned={"objective": "genmd4"})
