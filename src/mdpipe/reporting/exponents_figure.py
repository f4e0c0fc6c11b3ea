"""Learned schedules: the exponent of every token, one chart a run.

A token i is visible at time t with probability alpha_i(t) = 1 - t^w_i. Sampling runs t from 1, where all is masked, to
0. At every t between, a larger w_i makes t^w_i smaller and token i more likely to be there already: a large exponent
means that the token is revealed early, a small one late.
"""

from collections.abc import Callable, Mapping

import polars as pl

from mdpipe.data.artifacts.metrics import MetricsError
from mdpipe.reporting import svg
from mdpipe.reporting.axes import round_ticks
from mdpipe.reporting.columns import EXPONENTS
from mdpipe.reporting.rounding import exact_number

MOST_SYMBOLS = 40
"""Up to this many, every symbol is shown."""
EXTREMES = 15
"""Of more, this many at either end."""
GUTTER = 36
HEADING_HEIGHT = 52
PANEL_GAP = 26
ROW_HEIGHT = 16
AXIS_HEIGHT = 44
CURVE_HEIGHT = 190
LETTER_WIDTH, SYMBOL_LETTERS = 7, 13
"""Of a symbol: room for a letter of it, and how many letters are written."""
LABEL_GAP, RIGHT = 10, 12
"""Room between a symbol and the plot, and beside the plot for half a number."""
CURVE_LEFT, CURVE_RIGHT = 40, 112
"""Room beside a curve, for numbers and for what high and low mean."""
MARGIN = 0.06
"""Share of the range of exponents that stays free on either side."""
LEAST_RANGE = 0.02
"""From one end of an axis to the other at least: a schedule that stayed as it was should look it."""
MARKS = {" ": "␣", "\n": "⏎", "\t": "⇥"}
"""How what leaves no ink is written."""

Rows = list[tuple[int, str | None, float]]


def exponents_figure(exponents: Mapping[str, pl.DataFrame], ordered: Mapping[str, bool]) -> str:
    """Draw the exponents of every run, by name, the largest first; the grey line is their mean.

    Args:
        exponents: frames with the columns `EXPONENTS`.
        ordered: whether the tokens have an order, as grey levels do: many of them are then drawn along it.

    Raises:
        ValueError: there are no exponents, or a run has none.
        MetricsError: a frame has other columns or types.
    """
    if not exponents:
        raise ValueError("there are no exponents to draw")
    body, top = "", 0.0
    for run in sorted(exponents):
        rows = _checked(run, exponents[run])
        few = len(rows) <= MOST_SYMBOLS
        panel, height = _curve(top, rows) if ordered[run] and not few else _dots(top, rows)
        told = f"mean {exact_number(_mean(rows))} of {exact_number(len(rows))} tokens"
        body += svg.text(0, top + 14, run, kind="title")
        body += svg.text(svg.WIDTH, top + 14, told, kind="muted small", anchor="end")
        body += panel
        top += height + PANEL_GAP
    return svg.figure(
        body, top - PANEL_GAP, f"Exponents of {', '.join(sorted(exponents))}; a large one means revealed early."
    )


def _checked(run: str, frame: pl.DataFrame) -> Rows:
    if dict(frame.schema) != EXPONENTS:
        raise MetricsError(f"the exponents of run {run!r} have the columns {frame.schema}; they should be {EXPONENTS}")
    if not frame.height:
        raise ValueError(f"run {run!r} has no exponents")
    return frame.sort("token").rows()


def _dots(top: float, rows: Rows) -> tuple[str, float]:
    """Two columns of symbols, the largest exponent first; of many symbols only the two ends."""
    falling = sorted(rows, key=lambda row: -row[2])
    if len(rows) > MOST_SYMBOLS:
        columns = [(f"the {EXTREMES} largest", falling[:EXTREMES]), (f"the {EXTREMES} smallest", falling[-EXTREMES:])]
    else:
        half = -(-len(rows) // 2)
        columns = [("the larger half", falling[:half]), ("the smaller half", falling[half:])]
    width = (svg.WIDTH - GUTTER) / 2
    longest = max(len(_visible(symbol)) for _, shown in columns for _, symbol, _ in shown)
    label_width = LABEL_GAP + LETTER_WIDTH * (longest + 1)
    low, high = _range(rows)
    north = top + HEADING_HEIGHT
    south = north + ROW_HEIGHT * len(columns[0][1])
    drawn = ""
    for number, (heading, shown) in enumerate(columns):
        west = number * (width + GUTTER) + label_width
        east = number * (width + GUTTER) + width - RIGHT
        x = _scale(low, high, west, east)
        drawn += svg.text(west, north - 10, f"exponents: {heading}", kind="muted small")
        for tick in round_ticks(low, high):
            drawn += svg.line([(x(tick), north), (x(tick), south)], kind="grid")
            drawn += svg.text(x(tick), south + 16, f"{tick:g}", kind="muted small", anchor="middle")
        drawn += svg.line([(x(_mean(rows)), north), (x(_mean(rows)), south)], kind="level")
        drawn += svg.line([(west, south), (east, south)], kind="axis")
        drawn += svg.text(west, south + 34, "← revealed late", kind="muted small")
        drawn += svg.text(east, south + 34, "revealed early →", kind="muted small", anchor="end")
        for row, (_, symbol, exponent) in enumerate(shown):
            middle = north + ROW_HEIGHT * (row + 0.5)
            drawn += svg.text(west - LABEL_GAP, middle + 4, _visible(symbol), kind="small", anchor="end")
            drawn += svg.marker(x(exponent), middle, "circle", kind="marker series0")
    return drawn, south + AXIS_HEIGHT - top


def _curve(top: float, rows: Rows) -> tuple[str, float]:
    """Exponent against token."""
    west, east = CURVE_LEFT, svg.WIDTH - CURVE_RIGHT
    north = top + HEADING_HEIGHT / 2
    south = north + CURVE_HEIGHT
    low, high = _range(rows)
    x, y = _scale(0, len(rows) - 1, west, east), _scale(low, high, south, north)
    drawn = ""
    for tick in round_ticks(low, high):
        drawn += svg.line([(west, y(tick)), (east, y(tick))], kind="grid")
        drawn += svg.text(west - 6, y(tick) + 4, f"{tick:g}", kind="muted small", anchor="end")
    drawn += svg.line([(west, y(_mean(rows))), (east, y(_mean(rows)))], kind="level")
    drawn += svg.line([(west, south), (east, south)], kind="axis")
    for token in (0, len(rows) // 2, len(rows) - 1):
        drawn += svg.text(x(token), south + 16, _visible(rows[token][1]), kind="muted small", anchor="middle")
    drawn += svg.text(east + 24, south + 16, "token", kind="muted small")
    drawn += svg.line([(x(token), y(exponent)) for token, _, exponent in rows], kind="series series0")
    drawn += svg.text(east + 10, north + 12, "↑ revealed early", kind="muted small")
    drawn += svg.text(east + 10, south - 4, "↓ revealed late", kind="muted small")
    return drawn, south + AXIS_HEIGHT / 2 - top


def _mean(rows: Rows) -> float:
    return sum(exponent for *_, exponent in rows) / len(rows)


def _range(rows: Rows) -> tuple[float, float]:
    """The ends of an axis on which every exponent has a place, with some room beside."""
    exponents = [exponent for *_, exponent in rows]
    middle = (min(exponents) + max(exponents)) / 2
    reach = max(max(exponents) - min(exponents), LEAST_RANGE) * (0.5 + MARGIN)
    return middle - reach, middle + reach


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    return lambda value: start + (end - start) * (value - low) / (high - low)


def _visible(symbol: str | None) -> str:
    """The symbol in characters that all leave ink, the end of a long one cut off."""
    if not symbol:
        return "(empty)"
    marked = "".join(
        MARKS.get(letter, letter if letter.isprintable() else letter.encode("unicode_escape").decode())
        for letter in symbol
    )
    return marked if len(marked) <= SYMBOL_LETTERS else marked[: SYMBOL_LETTERS - 1] + "…"
