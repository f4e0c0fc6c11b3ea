"""Rows of means over seeds, and of the trainings that they are the means of."""

import math

import polars as pl
import pytest

from mdpipe.reporting.schemas import HELD_OUT_COLUMNS, OTHER_TEXT_COLUMNS, to_display, without_replicates
from mdpipe.reporting.tables import likelihood_table, with_means, zero_shot_table
from tests.reporting.records import TEXT_RATES, difference, encoding, evaluation, zero_shot

NAMES = {"a": ["a", "a-seed1", "a-seed2"], "b": ["b"]}
VALUES = {"a": 2.0, "a-seed1": 2.3, "a-seed2": 2.6, "b": 3.0}
SEEDS = {"a": 0, "a-seed1": 1, "a-seed2": 2, "b": 0}


@pytest.fixture
def table():
    """Three trainings of one run and one of another, with a difference, and references."""
    evaluations = [
        evaluation(run, "docs", "text", value=value, stderr=0.03, seed=SEEDS[run], bits_per_byte=value / 2)
        for run, value in VALUES.items()
    ]
    of_seeds = difference("a", "b", difference_stderr=0.1, trainings="3 trainings each")
    bounds = likelihood_table(evaluations, [encoding("docs", TEXT_RATES)], [of_seeds])
    return with_means(bounds, NAMES, HELD_OUT_COLUMNS, {"a": 0.024})


def test_a_run_with_seeds_has_the_mean_and_its_errors(table):
    mean = table.row(0, named=True)
    assert (mean["run"], mean["seed"], mean["seeds"], mean["replicate_of"]) == ("a", None, 3, None)
    assert mean["value"] == pytest.approx(2.3)
    assert mean["seeds_stderr"] == pytest.approx(0.3 / math.sqrt(3))
    assert mean["stderr"] == pytest.approx(0.024)
    assert (mean["bits_per_byte"], mean["bits_per_byte_stderr"]) == pytest.approx((1.15, 0.0123 * 0.024 / 0.03))
    assert (mean["num_parameters"], mean["estimator"], mean["stderr_mc"]) == (905000, "md4 bound", None)


def test_trainings_follow_their_mean_without_a_difference(table):
    columns = ("run", "seed", "seeds", "replicate_of", "baseline", "difference")
    assert table.drop_nulls("run").select(*columns).rows() == [
        ("a", None, 3, None, "b", -0.0123),
        ("a", 0, 1, "a", None, None),
        ("a-seed1", 1, 1, "a", None, None),
        ("a-seed2", 2, 1, "a", None, None),
        ("b", 0, 1, None, None, None),
    ]
    assert table.filter(pl.col("run").is_null())["seeds"].null_count() == 2


def test_means_and_differences_have_six_digits_like_records():
    values = {"a": 2.0, "b": 1.99971, "c": 1.0}
    evaluations = [evaluation(run, "docs", "text", value=value, stderr=0.0123457) for run, value in values.items()]
    pair = difference("c", "a", difference=-0.0011742729036323622, difference_stderr_evaluation=0.007546799786343916)
    found = with_means(
        likelihood_table(evaluations, [], [pair]), {"a": ["a", "b"], "c": ["c"]}, HELD_OUT_COLUMNS, {"a": 1 / 3}
    )
    mean, _, _, compared = found.rows(named=True)
    assert (mean["value"], mean["stderr"], mean["seeds_stderr"]) == (1.99986, 0.333333, 0.000145)
    assert (compared["difference"], compared["difference_stderr_evaluation"]) == (-0.00117427, 0.0075468)


def test_a_person_reads_one_row_per_run(table):
    shown = without_replicates(table)
    assert shown["run"].to_list() == ["a", "b", None, None]
    display = to_display(shown)
    at = display.headings.index("value")
    assert display.headings[at : at + 3] == ["value", "seeds", "± over seeds"]
    assert [row[at : at + 3] for row in display.rows[:2]] == [["2.30 ± 0.02", "3", "0.17"], ["3.00 ± 0.03", "1", ""]]


def test_runs_without_seeds_stay_as_they_were():
    bounds = likelihood_table([evaluation(run, "docs", "text") for run in "ab"], [])
    found = with_means(bounds, {"a": ["a"], "b": ["b"]}, HELD_OUT_COLUMNS)
    assert found.drop("replicate_of", "seeds", "seeds_stderr").equals(bounds)
    assert found["seeds"].to_list() == [1, 1]


def test_mean_zero_shot_bounds_have_the_largest_error():
    """Their errors are of the same examples, so that the error of the mean is at most the mean of the errors."""
    records = [
        zero_shot(run, "numpy", value=VALUES[run], stderr=error) for run, error in (("a", 0.02), ("a-seed1", 0.04))
    ]
    found = with_means(zero_shot_table(records), {"a": ["a", "a-seed1"]}, OTHER_TEXT_COLUMNS)
    mean, first, second = found.drop_nulls("run").rows(named=True)
    assert (mean["value"], mean["stderr"], mean["seeds_stderr"]) == pytest.approx((2.15, 0.03, 0.15))
    assert (first["run"], second["run"], second["replicate_of"]) == ("a", "a-seed1", "a")
