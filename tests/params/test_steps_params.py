"""`steps_to_bound` of params.yaml: its rows exist, follow each other, and are measured alike."""

from copy import deepcopy

import pytest
import yaml

from mdpipe.params import dump_params, parse_params
from tests.params.refusals import SMOKE, error_of

TABLE = {"bits": 3.5, "baseline": "chars_md4", "runs": {"chars_ar": "chars_md4"}}
VALIDATION = {"every": 10, "num_examples": 8, "num_mc_samples": 2}
VALIDATED = {f"runs.{run}.train.validation": VALIDATION for run in ("chars_md4", "chars_ar", "digits")}


def with_table(**seeds):
    """Return the smoke preset with a table, and seeds of some runs."""
    data = deepcopy(SMOKE) | {"steps_to_bound": deepcopy(TABLE)}
    for run in ("chars_md4", "chars_ar"):
        data["runs"][run]["train"] |= {"validation": VALIDATION}
        data["runs"][run] |= {"seeds": seeds[run]} if run in seeds else {}
    return data


def test_resolved_rows_mean_the_same_when_read_again():
    params = parse_params(with_table(chars_md4=[0, 1, 2], chars_ar=[2, 1, 0]))
    assert params.steps_to_bound.runs == {"chars_ar": "chars_md4"}
    assert parse_params(yaml.safe_load(dump_params(params))) == params


def test_validations_may_be_at_other_steps():
    data = with_table()
    data["runs"]["chars_ar"]["train"]["validation"] = VALIDATION | {"every": 5, "batch_size": 4}
    parse_params(data)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"baseline": "chars_md5"}, ["baseline: 'chars_md5'", "not one of runs (did you mean 'chars_md4'?)"]),
        (
            {"runs": {"chars_arr": "chars_md4"}},
            ["runs.chars_arr", "the row is not one of runs (did you mean"],
        ),
        ({"runs": {"chars_ar": "digits"}}, ["runs.chars_ar: 'digits'", "not one of the rows above", "chars_md4"]),
        ({"runs": {"chars_md4": "chars_md4"}}, ["runs.chars_md4", "the baseline is the first row already"]),
        ({"runs": {"digits": "chars_md4"}}, ["runs.digits", "'digits' and 'chars_md4' need the same dataset"]),
        ({"runs": {}}, ["steps_to_bound.runs"]),
        ({"runs": ["chars_ar"]}, ["steps_to_bound.runs", "must be a mapping"]),
        ({"bits": 0.0}, ["steps_to_bound.bits: 0.0"]),
        ({"bound": 3.5}, ["steps_to_bound: unknown key 'bound'", "allowed: bits, baseline, runs"]),
    ],
)
def test_rows_that_cannot_be_are_refused_by_key(changes, parts):
    message = error_of(VALIDATED | {"steps_to_bound": TABLE | changes})
    assert all(part in message for part in parts), message


@pytest.mark.parametrize("run", ["chars_md4", "chars_ar"])
def test_a_row_without_validations_is_refused(run):
    message = error_of(VALIDATED | {f"runs.{run}.train.validation": None, "steps_to_bound": TABLE})
    where = "baseline: 'chars_md4'" if run == "chars_md4" else "runs.chars_ar: 'chars_md4'"
    assert f"steps_to_bound.{where} is refused: has no validations" in message
    assert f"write `validation: {{every: N}}` in runs.{run}.train" in message


@pytest.mark.parametrize(
    "change",
    [
        {"runs.chars_ar.seeds": [0, 1]},
        {"runs.chars_ar.seed": 3},
        {"runs.chars_ar.evaluate.split": "validation"},
        {"runs.chars_ar.train.validation": VALIDATION | {"num_examples": 4}},
        {"runs.chars_ar.train.validation": VALIDATION | {"num_mc_samples": 4}},
    ],
)
def test_rows_that_are_measured_otherwise_are_refused(change):
    message = error_of(VALIDATED | change | {"steps_to_bound": TABLE})
    assert "steps_to_bound.runs.chars_ar" in message
    assert "'chars_ar' and 'chars_md4' need the same dataset, `seeds`, split of evaluation" in message
