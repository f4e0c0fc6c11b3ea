from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdpipe.reporting.markdown import format_measurement, format_number, replace_section, round_by_error

ERRORS = st.floats(min_value=1e-9, max_value=1e6)
VALUES = st.floats(min_value=-1e9, max_value=1e9)


def number(text: str) -> Decimal:
    return Decimal(text.replace(",", ""))


def decimal(value: float) -> Decimal:
    """Return the number as it is written, since rounding starts from that."""
    return Decimal(repr(value))


@given(value=VALUES, stderr=ERRORS)
def test_value_and_error_end_at_the_same_decimal(value, stderr):
    shown, error = map(number, round_by_error(value, stderr))
    assert shown.as_tuple().exponent == error.as_tuple().exponent


@given(value=VALUES, stderr=ERRORS)
def test_rounding_moves_a_value_by_a_quarter_of_its_error(value, stderr):
    """The last digit counts at most half an error (an error of 2 to 9 of it, or 10 to 19), and half of it is lost."""
    shown, error = map(number, round_by_error(value, stderr))
    assert abs(shown - decimal(value)) <= decimal(stderr) / 4
    assert abs(error - decimal(stderr)) <= decimal(stderr) / 4


@given(value=VALUES, stderr=st.floats(min_value=1e-9, max_value=0.9))
def test_the_error_has_one_digit_or_two_after_a_one(value, stderr):
    _, error = round_by_error(value, stderr)
    digits = error.replace(".", "").lstrip("0")
    if decimal(stderr).as_tuple().digits[0] == 1:
        assert len(digits) == 2
    else:
        assert len(digits) == 1 or digits == "10"


@given(value=st.floats(min_value=1e-6, max_value=1e9))
def test_exact_numbers_are_right_to_four_digits(value):
    assert abs(number(format_number(value)) - decimal(value)) <= decimal(value) / 2000


@given(value=st.floats(min_value=-1, max_value=1), stderr=ERRORS)
def test_zero_after_rounding_has_no_sign(value, stderr):
    shown = round_by_error(value, stderr)[0]
    assert shown.startswith("-") == (number(shown) < 0)


def test_examples_of_differences():
    assert format_measurement(-0.01234, 0.0031) == "-0.012 ± 0.003"
    assert format_measurement(-0.0004, 0.0031) == "0.000 ± 0.003"
    assert format_measurement(-0.0016, 0.0031) == "-0.002 ± 0.003"
    assert format_measurement(-0.004, 2.0) == "0 ± 2"


def test_examples_of_measurements():
    assert format_measurement(2.71345, 0.00419) == "2.713 ± 0.004"
    assert format_measurement(2.71345, 0.0149) == "2.713 ± 0.015"
    assert format_measurement(2.71345, 0.0961) == "2.71 ± 0.10"
    assert format_measurement(74.213, 1.62) == "74.2 ± 1.6"
    assert format_measurement(1234567.8, 2345.0) == "1,235,000 ± 2,000"
    assert format_measurement(3.7, None) == "3.700"
    assert format_measurement(3.7, 0.0) == "3.700"
    assert format_measurement(905000, None) == "905,000"
    assert format_measurement(0.0, None) == "0"


BODIES = st.text(alphabet="ab|\n -").map(lambda text: text.strip("\n"))


@given(before=BODIES, old=BODIES, new=BODIES, after=BODIES)
def test_only_text_between_the_markers_changes(before, old, new, after):
    text = f"{before}<!-- results:begin -->{old}<!-- results:end -->{after}"
    replaced = replace_section(text, "results", new)
    assert replaced == f"{before}<!-- results:begin -->\n{new}\n<!-- results:end -->{after}"
    assert replace_section(replaced, "results", new) == replaced


def test_sections_do_not_touch_each_other():
    text = "".join(f"<!-- {name}:begin -->\nold {name}\n<!-- {name}:end -->\n" for name in ("one", "two"))
    replaced = replace_section(text, "two", "new")
    assert "old one" in replaced
    assert "old two" not in replaced


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("nothing", "0 markers <!-- results:begin -->"),
        ("<!-- results:begin -->", "0 markers <!-- results:end -->"),
        ("<!-- results:begin --><!-- results:begin --><!-- results:end -->", "2 markers <!-- results:begin -->"),
        ("<!-- results:end --><!-- results:begin -->", "comes before"),
    ],
)
def test_missing_doubled_or_reversed_markers_are_named(text, named):
    with pytest.raises(ValueError, match=named):
        replace_section(text, "results", "body")
