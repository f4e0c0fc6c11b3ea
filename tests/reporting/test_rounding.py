from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from mdpipe.reporting.rounding import exact_number, measurement, rounded_measurement

ERRORS = st.floats(min_value=1e-9, max_value=1e6)
VALUES = st.floats(min_value=-1e9, max_value=1e9)


def number(text: str) -> Decimal:
    return Decimal(text.replace(",", ""))


def decimal(value: float) -> Decimal:
    """The number as it is written, which is what gets rounded."""
    return Decimal(repr(value))


@given(value=VALUES, stderr=ERRORS)
def test_value_and_error_end_at_the_same_decimal(value, stderr):
    shown, error = map(number, rounded_measurement(value, stderr))
    assert shown.as_tuple().exponent == error.as_tuple().exponent


@given(value=VALUES, stderr=ERRORS)
def test_rounding_moves_the_value_by_at_most_a_quarter_of_its_error(value, stderr):
    """The last digit counts at most half an error (an error of 2 to 9 of it, or 10 to 19), and half of it is lost."""
    shown, error = map(number, rounded_measurement(value, stderr))
    assert abs(shown - decimal(value)) <= decimal(stderr) / 4
    assert abs(error - decimal(stderr)) <= decimal(stderr) / 4


@given(value=VALUES, stderr=st.floats(min_value=1e-9, max_value=0.9))
def test_the_error_has_one_digit_or_two_after_a_one(value, stderr):
    _, error = rounded_measurement(value, stderr)
    digits = error.replace(".", "").lstrip("0")
    if decimal(stderr).as_tuple().digits[0] == 1:
        assert len(digits) == 2
    else:
        assert len(digits) == 1 or digits == "10"


@given(value=st.floats(min_value=1e-6, max_value=1e9))
def test_exact_numbers_are_right_to_four_digits(value):
    assert abs(number(exact_number(value)) - decimal(value)) <= decimal(value) / 2000


@given(value=st.floats(min_value=-1, max_value=1), stderr=ERRORS)
def test_what_rounds_to_nothing_has_no_sign(value, stderr):
    shown = rounded_measurement(value, stderr)[0]
    assert shown.startswith("-") == (number(shown) < 0)


def test_a_difference_as_a_reader_knows_it():
    assert measurement(-0.01234, 0.0031) == "-0.012 ± 0.003"
    assert measurement(-0.0004, 0.0031) == "0.000 ± 0.003"
    assert measurement(-0.0016, 0.0031) == "-0.002 ± 0.003"
    assert measurement(-0.004, 2.0) == "0 ± 2"


def test_measurements_as_a_reader_knows_them():
    assert measurement(2.71345, 0.00419) == "2.713 ± 0.004"
    assert measurement(2.71345, 0.0149) == "2.713 ± 0.015"
    assert measurement(2.71345, 0.0961) == "2.71 ± 0.10"
    assert measurement(74.213, 1.62) == "74.2 ± 1.6"
    assert measurement(1234567.8, 2345.0) == "1,235,000 ± 2,000"
    assert measurement(3.7, None) == "3.700"
    assert measurement(3.7, 0.0) == "3.700"
    assert measurement(905000, None) == "905,000"
    assert measurement(0.0, None) == "0"
