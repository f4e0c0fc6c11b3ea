"""Measurements of sampling: the numbers agree with each other, and impossible settings are refused."""

import pytest

from mdpipe.benchmarks.runner import run
from tests.benchmarks.configurations import tiny


def test_numbers_agree_with_each_other():
    result = tiny("ancestral_stepwise").measure()
    assert result["tokens_per_second"] * result["seconds"] == pytest.approx(2 * 7)
    assert result["mfu"] == pytest.approx(result["flops_per_second"] / result["peak_flops"])
    assert 0 < result["peak_mem_mib_before"] <= result["peak_mem_mib"]
    assert result["seconds_stderr"] >= 0


@pytest.mark.parametrize(
    ("kind", "measured", "calls"), [("ancestral_stepwise", 4, 20), ("two_stage", 4, 20), ("first_hitting", 7, 7)]
)
def test_network_calls_are_scaled_to_all_steps(kind, measured, calls):
    result = tiny(kind).measure()
    assert (result["steps_measured"], result["nfe"]) == (measured, calls)


def test_ancestral_sampling_is_always_measured_in_full():
    result = tiny("ancestral", steady_steps=1).measure()
    assert result["steps_measured"] == 20
    assert 1 < result["nfe"] <= 14


def test_no_more_steps_are_measured_than_there_are():
    assert tiny("ancestral_stepwise", steps=3).measure()["steps_measured"] == 3


def test_one_repetition_has_no_standard_error():
    assert tiny("ancestral", repeats=1).measure()["seconds_stderr"] is None


def test_bfloat16_can_be_measured():
    assert tiny("ancestral", dtype="bfloat16").measure()["tokens_per_second"] > 0


@pytest.mark.slow
def test_a_failed_process_gives_its_reason_in_one_line():
    with pytest.raises(ValueError, match=r"at batch 2 was not measured: ValueError: num_heads = 3: does not divide"):
        run([tiny("ancestral_stepwise", num_heads=3)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampler": "remdm"}, "--sampler must be one of ancestral_stepwise, two_stage, .* not 'remdm'"),
        ({"dtype": "int8"}, "--dtype must be one of float32, bfloat16, not 'int8'"),
    ],
)
def test_settings_that_cannot_be_measured_are_errors(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny(**{"sampler": "ancestral_stepwise", **changes})
