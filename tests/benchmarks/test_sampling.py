"""What a measurement says of itself; how fast anything is is nobody's promise here."""

import pytest

from mdpipe.benchmarks.runner import run_in_subprocess
from tests.benchmarks.configurations import tiny


def test_numbers_agree_with_each_other():
    result = tiny("ancestral").measure()
    assert result["tokens_per_second"] * result["seconds"] == pytest.approx(2 * 7)
    assert result["mfu"] == pytest.approx(result["flops_per_second"] / result["peak_flops"])
    assert 0 < result["peak_mem_mib_before"] <= result["peak_mem_mib"]
    assert result["seconds_stderr"] >= 0


@pytest.mark.parametrize(
    ("kind", "measured", "calls"), [("ancestral", 4, 20), ("two_stage", 4, 20), ("first_hitting", 7, 7)]
)
def test_network_calls_are_those_of_the_whole_walk(kind, measured, calls):
    result = tiny(kind).measure()
    assert (result["steps_measured"], result["network_calls"]) == (measured, calls)


def test_planned_sampling_is_always_measured_whole():
    result = tiny("reveal_first", steady_steps=1).measure()
    assert result["steps_measured"] == 20
    assert 1 < result["network_calls"] <= 14


def test_no_more_steps_are_measured_than_there_are():
    assert tiny("ancestral", steps=3).measure()["steps_measured"] == 3


def test_one_walk_has_no_standard_error():
    assert tiny("reveal_first", repeats=1).measure()["seconds_stderr"] is None


def test_a_measurement_in_bfloat16():
    assert tiny("reveal_first", dtype="bfloat16").measure()["tokens_per_second"] > 0


@pytest.mark.slow
def test_a_process_that_fails_says_why_in_a_line():
    with pytest.raises(ValueError, match=r"ancestral at batch 2 was not measured: ValueError: network\.heads = 3 does"):
        run_in_subprocess(tiny("ancestral", heads=3))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampler": "generalized"}, "--sampler must be one of ancestral, two_stage, .* not 'generalized'"),
        ({"dtype": "int8"}, "--dtype must be one of float32, bfloat16, not 'int8'"),
        ({"batch": 0}, "--batch must be at least 1, not 0"),
        ({"steady_steps": 0}, "--steady-steps must be at least 1, not 0"),
    ],
)
def test_what_cannot_be_measured_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny(**{"sampler": "ancestral", **changes})
