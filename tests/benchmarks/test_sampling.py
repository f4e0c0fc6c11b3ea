"""Measurements of sampling: the numbers agree with each other, and impossible settings are refused."""

import pytest

from mdpipe.benchmarks.runner import run
from mdpipe.benchmarks.sampling import BENCHMARK, measure
from tests.benchmarks.configurations import tiny


def test_numbers_agree_with_each_other():
    result = measure(tiny("ancestral_stepwise"))
    assert result["tokens_per_second"] * result["seconds"] == pytest.approx(2 * 7)
    assert result["mfu"] == pytest.approx(result["flops_per_second"] / result["peak_flops"])
    assert 0 < result["peak_mem_mib_before"] <= result["peak_mem_mib"]
    assert result["seconds_stderr"] >= 0


@pytest.mark.parametrize(
    ("kind", "measured", "calls"), [("ancestral_stepwise", 4, 20), ("two_stage", 4, 20), ("first_hitting", 7, 7)]
)
def test_network_calls_are_scaled_to_all_steps(kind, measured, calls):
    result = measure(tiny(kind))
    assert (result["steps_measured"], result["nfe"]) == (measured, calls)


def test_ancestral_sampling_is_always_measured_in_full():
    result = measure(tiny("ancestral", steady_steps=1))
    assert result["steps_measured"] == 20
    assert 1 < result["nfe"] <= 14


def test_no_more_steps_are_measured_than_there_are():
    assert measure(tiny("ancestral_stepwise", steps=3))["steps_measured"] == 3


def test_one_repetition_has_no_standard_error():
    assert measure(tiny("ancestral", repeats=1))["seconds_stderr"] is None


def test_bfloat16_can_be_measured():
    assert measure(tiny("ancestral", dtype="bfloat16"))["tokens_per_second"] > 0


@pytest.mark.slow
def test_a_failed_process_gives_its_reason_in_one_line():
    with pytest.raises(ValueError, match=r"at batch 2 was not measured: ValueError: num_heads = 3: does not divide"):
        run(BENCHMARK, [tiny("ancestral_stepwise", num_heads=3)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampler": "remdm"}, "--sampler must be one of ancestral, ancestral_stepwise, .* not 'remdm'"),
        ({"dtype": "int8"}, "--dtype must be one of float32, bfloat16, not 'int8'"),
    ],
)
def test_settings_that_cannot_be_measured_are_errors(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny(**{"sampler": "ancestral_stepwise", **changes})
