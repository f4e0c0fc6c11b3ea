"""Markdown: numbers rounded by their standard errors, tables, and the generated sections of a hand-written page."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

Columns = dict[str, str | Callable[[Any], str]]
"""The cell of a row for each heading: a format string of the row's values, or a function of the row. A cell is empty
where the row has no such value."""

EXACT_DIGITS = 4
"""Significant digits of a number without a standard error, such as a compressor's rate."""


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]], align_right: Sequence[bool]) -> str:
    """Return a Markdown table whose source is aligned as well.

    Args:
        headings: Headings of the columns.
        rows: Rows, each a list with a text per column.
        align_right: True for a column of numbers.
    """
    columns = list(zip(headings, *[[_escape(cell) for cell in row] for row in rows], strict=True))
    widths = [max(map(len, column)) for column in columns]
    lines = [
        [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, align_right, strict=True)
        ]
        for line in zip(*columns, strict=True)
    ]
    rule = ["-" * (width - right) + ":" * right for width, right in zip(widths, align_right, strict=True)]
    return "".join(f"| {' | '.join(line)} |\n" for line in [lines[0], rule, *lines[1:]])


def format_rows(rows: Iterable[Mapping[str, Any]], columns: Columns) -> list[list[str]]:
    """Return the cells of rows."""
    return [[_format_cell(cell, row) for cell in columns.values()] for row in rows]


def replace_section(text: str, name: str, body: str) -> str:
    """Put `body` between the lines `<!-- name:begin -->` and `<!-- name:end -->`; doing it twice changes nothing.

    Raises:
        ValueError: A marker is missing or occurs twice, or the end comes first.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    for marker in (begin, end):
        if (times := text.count(marker)) != 1:
            raise ValueError(f"the text has {times} markers {marker}; it must have exactly one")
    head, rest = text.split(begin)
    if end not in rest:
        raise ValueError(f"the marker {end} comes before {begin}; it must come after")
    tail = rest.split(end)[1]
    return f"{head}{begin}\n{body.strip(chr(10))}\n{end}{tail}"


def format_measurement(value: float, stderr: float | None) -> str:
    """Return `2.713 ± 0.004`, or only the value if there is no error."""
    return " ± ".join(round_by_error(value, stderr)) if stderr else format_number(value)


def format_number(value: float) -> str:
    """Return an integer in full with thousands separators, any other number to `EXACT_DIGITS` significant digits."""
    if isinstance(value, int):
        return f"{value:,}"
    if value == 0:
        return "0"
    return _to_decimal(value, Decimal(repr(float(value))).adjusted() - EXACT_DIGITS + 1)


def round_by_error(value: float, stderr: float) -> tuple[str, str]:
    """Round value and standard error to the decimal of the error's first digit, or of its second after a 1.

    A 1 gets one more digit because rounding it away could change the error by a third: 0.0149 is 0.015, not 0.01.
    The error must be positive.
    """
    error = Decimal(repr(float(stderr)))
    leading = error.as_tuple().digits[0]
    last = error.adjusted() - (1 if leading == 1 else 0)
    return _to_decimal(value, last), _to_decimal(stderr, last)


def _format_cell(cell: str | Callable[[Any], str], row: Mapping[str, Any]) -> str:
    try:
        return cell(row) if callable(cell) else cell.format_map(row)
    except (KeyError, TypeError):  # The value is missing, or None.
        return ""


def _to_decimal(value: float, last: int) -> str:
    """Round `value` to the digit that counts 10^last, and write it without an exponent."""
    digit = Decimal(1).scaleb(last)
    rounded = Decimal(repr(float(value))).quantize(digit, rounding=ROUND_HALF_EVEN)
    return f"{rounded + 0:,.{max(0, -last)}f}"  # adding 0 turns -0.00 into 0.00


def _escape(cell: str) -> str:
    return cell.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
