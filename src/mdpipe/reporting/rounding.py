"""Numbers as people read them: a measured value has as many digits as its standard error supports."""

from decimal import ROUND_HALF_EVEN, Decimal

EXACT_DIGITS = 4
"""Significant digits of a number without a standard error, such as what a compressor gives."""


def rounded_measurement(value: float, stderr: float) -> tuple[str, str]:
    """Value and standard error, both to the same decimal: that of the error's first digit, or its second after a 1.

    A 1 gets one more digit because rounding it away could change the error by a third: 0.0149 is 0.015, not 0.01.
    The error must be positive.
    """
    error = Decimal(repr(float(stderr)))
    leading = error.as_tuple().digits[0]
    last = error.adjusted() - (1 if leading == 1 else 0)
    return _to_decimal(value, last), _to_decimal(stderr, last)


def measurement(value: float, stderr: float | None) -> str:
    """`2.713 ± 0.004`, or the value alone where there is no error to tell."""
    return " ± ".join(rounded_measurement(value, stderr)) if stderr else exact_number(value)


def exact_number(value: float) -> str:
    """A count in full with its thousands apart, anything else to `EXACT_DIGITS` significant digits."""
    if isinstance(value, int):
        return f"{value:,}"
    if value == 0:
        return "0"
    return _to_decimal(value, Decimal(repr(float(value))).adjusted() - EXACT_DIGITS + 1)


def _to_decimal(value: float, last: int) -> str:
    """`value` rounded to the digit that counts 10^last, without an exponent."""
    digit = Decimal(1).scaleb(last)
    rounded = Decimal(repr(float(value))).quantize(digit, rounding=ROUND_HALF_EVEN)
    return f"{rounded + 0:,.{max(0, -last)}f}"  # the zero makes -0.00 a plain 0.00
