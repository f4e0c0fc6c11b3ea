"""Steps to a bound: the crossing of a curve, ratios paired by seed, and the table of both."""

import math

import numpy as np
import pytest

from mdpipe.evaluation.estimate import SeedsEstimate
from mdpipe.reporting.schemas import to_markdown, to_texts
from mdpipe.reporting.seeds import mean_log_ratio
from mdpipe.reporting.steps_to_bound import (
    DISPLAYED_STEPS,
    STEPS_TO_BOUND,
    RunSteps,
    changed_settings,
    first_crossing,
    steps_table,
)

T_2 = 4.302653
"""The 0.975 quantile of Student's t with two degrees of freedom, sqrt(2) * 0.95 / sqrt(1 - 0.95^2)."""
STEPS = list(range(50, 601, 50))


def final(value, stderr=0.02):
    return SeedsEstimate(
        value=value, stderr=stderr, stderr_evaluation=stderr, stderr_seeds=stderr, stderr_examples=0.0, clusters=2
    )


def ratio_interval(values, baseline):
    """The mean ratio and the ends of its interval."""
    return mean_log_ratio(*(np.array(one)[:, None] for one in (values, baseline))).value_and_interval


def run_steps(run, steps, **changes):
    """A run of 600 steps and 60 CPU seconds per training."""
    settings = {
        "run": run,
        "changed_from": "paper",
        "changes": "train.optimizer.kind muon",
        "train_steps": 600,
        "steps": steps,
        "cpu_seconds": [60.0] * len(steps),
        "final": final(3.75),
        "difference": final(-0.25, 0.05),
    }
    return RunSteps(**settings | changes)


PAPER = run_steps("paper", [400.0, 500.0, 600.0], changed_from="", changes="", difference=None, final=final(4.0))


@pytest.mark.parametrize("bound", [3.9, 3.5, 3.125])
def test_the_crossing_of_a_line_is_exact(bound):
    """The bound 4 - step / 500 is reached at step 500 (4 - bound)."""
    assert first_crossing(STEPS, [4 - step / 500 for step in STEPS], bound) == pytest.approx(500 * (4 - bound))


def test_the_crossing_of_a_curve_lies_on_the_chord():
    """The bound 3 + 100 / step reaches 3.4 at step 250, and the chord from 200 to 300 at 260."""
    assert first_crossing([100, 200, 300], [3 + 100 / step for step in (100, 200, 300)], 3.4) == pytest.approx(260)


def test_a_curve_that_rises_again_counts_its_first_crossing():
    assert first_crossing([10, 20, 30, 40], [4.0, 3.0, 5.0, 2.0], 3.5) == pytest.approx(15)


def test_a_curve_above_the_bound_never_reaches_it():
    assert first_crossing(STEPS, [3.6] * len(STEPS), 3.5) is None
    assert first_crossing([], [], 3.5) is None


def test_a_curve_below_the_bound_has_its_first_step():
    assert first_crossing(STEPS, [3.5] * len(STEPS), 3.5) == 50


def test_the_interval_of_a_ratio_is_the_one_computed_by_hand():
    """Log ratios log(1/2) + (-d, 0, d): their standard deviation is d."""
    d = math.log(1.1)
    baseline = [400.0, 500.0, 600.0]
    halves = [other / 2 * math.exp(shift) for other, shift in zip(baseline, (-d, 0, d), strict=True)]
    half = T_2 * d / math.sqrt(3)
    expected = (0.5, 0.5 * math.exp(-half), 0.5 * math.exp(half))
    assert ratio_interval(halves, baseline) == pytest.approx(expected, rel=1e-6)


def test_what_seeds_share_cancels_in_a_ratio():
    assert ratio_interval([100.0, 200.0, 400.0], [200.0, 400.0, 800.0]) == pytest.approx((0.5, 0.5, 0.5))


def test_one_pair_has_a_ratio_without_an_interval():
    assert ratio_interval([100.0], [200.0]) == pytest.approx((0.5, math.nan, math.nan), nan_ok=True)


def test_the_interval_of_a_ratio_covers_as_often_as_it_says():
    """4,000 sets of three pairs with a common effect of the seed; a false alarm every 10^5 runs (4.4 sigma)."""
    random, sets = np.random.default_rng(0), 4000
    seed, noise = random.normal(0, 0.3, (sets, 1, 3)), random.normal(0, 0.1, (sets, 2, 3))
    steps = np.exp(np.log([[500.0], [200.0]]) + seed + noise)
    intervals = [ratio_interval(run.tolist(), baseline.tolist()) for baseline, run in steps]
    covered = sum(low <= 0.4 <= high for _, low, high in intervals)
    assert abs(covered - 0.95 * sets) < 4.4 * math.sqrt(sets * 0.95 * 0.05)


def test_the_baseline_has_its_steps_and_nothing_to_compare():
    row = steps_table([PAPER]).row(0, named=True)
    assert (row["steps"], row["steps_stderr"]) == pytest.approx((500, 100 / math.sqrt(3)), rel=1e-5)
    assert (row["cpu_seconds"], row["cpu_seconds_stderr"]) == pytest.approx((50, 10 / math.sqrt(3)), rel=1e-5)
    assert (row["value"], row["stderr"], row["seeds"], row["reached"]) == (4.0, 0.02, 3, 3)
    compared = [name for name in STEPS_TO_BOUND if name.startswith(("steps_ratio", "cpu_ratio", "difference"))]
    assert all(row[name] is None for name in (*compared, "changed_from"))


def test_ratios_are_to_the_baseline_and_to_the_changed_row():
    """CPU seconds are in proportion to the steps: 100 seconds for 300 steps of the second, 60 for 600 of the first."""
    muon = run_steps("muon", [200.0, 250.0, 300.0], train_steps=300, cpu_seconds=[100.0] * 3)
    flat = run_steps("flat", [100.0, 125.0, 150.0], changed_from="muon")
    _, first, second = steps_table([PAPER, muon, flat]).rows(named=True)
    assert (first["steps_ratio"], first["steps_ratio_to_changed"]) == pytest.approx((0.5, 0.5))
    assert (second["steps_ratio"], second["steps_ratio_to_changed"]) == pytest.approx((0.25, 0.5))
    assert (first["cpu_seconds"], first["cpu_ratio"]) == pytest.approx((250 / 3, 5 / 3), rel=1e-5)
    half = T_2 * 0.05
    ends = (first["difference"], first["difference_low"], first["difference_high"])
    assert ends == pytest.approx((-0.25, -0.25 - half, -0.25 + half), rel=1e-5)
    assert first["difference_p"] == pytest.approx(1 - 5 / math.sqrt(27), rel=1e-5)


@pytest.mark.parametrize(("steps", "text"), [([None] * 3, "never"), ([None, 250.0, 300.0], "reached by 2 of 3")])
def test_a_run_that_misses_the_bound_says_so(steps, text):
    table = steps_table([PAPER, run_steps("muon", steps)])
    row = table.row(1, named=True)
    assert row["reached"] == sum(step is not None for step in steps)
    assert [row[name] for name in ("steps", "steps_ratio", "cpu_seconds", "cpu_ratio")] == [None] * 4
    assert row["difference"] == -0.25
    assert to_texts(table, DISPLAYED_STEPS)["steps to the bound"].to_list() == ["500 ± 60", text]


def test_a_baseline_that_misses_the_bound_leaves_no_ratio():
    paper = run_steps("paper", [None] * 3, changed_from="", difference=None)
    row = steps_table([paper, run_steps("muon", [200.0, 250.0, 300.0])]).row(1, named=True)
    assert (row["steps"], row["steps_ratio"], row["cpu_ratio"]) == (250, None, None)


def test_one_training_each_has_ratios_without_intervals():
    paper = run_steps("paper", [400.0], changed_from="", difference=None, final=4.0)
    table = steps_table([paper, run_steps("muon", [100.0], difference=None, final=3.75, cpu_seconds=[])])
    row = table.row(1, named=True)
    assert (row["steps_ratio"], row["steps_ratio_low"], row["steps_stderr"], row["stderr"]) == (0.25, None, None, None)
    shown = to_texts(table, DISPLAYED_STEPS)
    assert shown["ratio"].to_list() == ["", "0.25"]
    assert "final difference" not in shown.columns and "p" not in shown.columns


def test_a_person_reads_errors_and_intervals():
    shown = to_texts(steps_table([PAPER, run_steps("muon", [220.0, 250.0, 270.0])]), DISPLAYED_STEPS).row(1, named=True)
    assert shown["steps to the bound"] == "247 ± 15"
    assert shown["ratio"] == "0.498 (0.388 to 0.639)"
    assert (shown["final bits"], shown["final difference"], shown["p"]) == (
        "3.75 ± 0.02",
        "-0.25 (-0.465 to -0.0349)",
        "0.04",
    )


def test_without_runs_the_table_has_its_columns():
    table = steps_table([])
    assert (table.height, dict(table.schema)) == (0, STEPS_TO_BOUND)
    assert to_markdown(to_texts(table, DISPLAYED_STEPS)).startswith("| run | changed from | changes |")


def test_changes_are_the_settings_that_differ():
    paper = {
        "objective": {"kind": "md4", "exact_counts": False},
        "train": {"steps": 600, "optimizer": {"kind": "adamw"}},
    }
    muon = {
        "objective": {"kind": "md4", "exact_counts": True},
        "train": {"steps": 300, "optimizer": {"kind": "muon", "learning_rate": None}},
    }
    expected = "objective.exact_counts true, train.steps 300, train.optimizer.kind muon"
    assert changed_settings(muon, paper) == f"{expected}, train.optimizer.learning_rate null"
    assert changed_settings(paper, muon).startswith("objective.exact_counts false, train.steps 600")
    assert changed_settings(paper, paper) == ""
