"""Training curves: the loss of every run along its steps, one small chart a run."""

from collections.abc import Mapping, Sequence

import polars as pl

from mdpipe.reporting import svg
from mdpipe.reporting.axes import round_ticks
from mdpipe.reporting.rounding import exact_number

COLUMNS = 2
GUTTER = 36
PANEL_WIDTH = (svg.WIDTH - GUTTER * (COLUMNS - 1)) / COLUMNS
PANEL_HEIGHT = 212
PANEL_GAP = 18
LEFT, RIGHT, TOP, BOTTOM = 34, 8, 34, 34
"""Room around the plot, for numbers and the heading."""
SMOOTHING = 9
"""Rows whose mean is the bold line; the thin one is the curve as recorded."""
LEAST_RANGE = 0.1
"""Bits from the foot of a plot to its top at least: a curve that is flat should look it."""

Points = list[tuple[float, float]]


def training_curves_figure(curves: Mapping[str, pl.DataFrame], units: Mapping[str, str]) -> str:
    """Draw loss against step for every run, by name.

    Args:
        curves: of each run, with the columns `step` and `loss` (bits per token).
        units: how each run's bits per token are called: bits/dim for images.

    Raises:
        ValueError: there are no curves, or one of them has no rows.
    """
    if not curves:
        raise ValueError("there are no training curves to draw")
    body = ""
    for index, run in enumerate(sorted(curves)):
        if not curves[run].height:
            raise ValueError(f"the training curve of run {run!r} has no rows")
        left = index % COLUMNS * (PANEL_WIDTH + GUTTER)
        top = index // COLUMNS * (PANEL_HEIGHT + PANEL_GAP)
        body += _panel(left, top, run, units[run], curves[run]["step"].to_list(), curves[run]["loss"].to_list())
    rows = -(-len(curves) // COLUMNS)
    height = rows * (PANEL_HEIGHT + PANEL_GAP) - PANEL_GAP
    return svg.figure(body, height, f"Training loss of {', '.join(sorted(curves))}, in bits, along the steps.")


def _panel(left: float, top: float, run: str, unit: str, steps: Sequence[int], losses: Sequence[float]) -> str:
    bold = _smoothed(losses)
    low = min(losses)
    high = max(*bold, low + LEAST_RANGE)
    x_ticks, y_ticks = round_ticks(0, max(steps), least=1), round_ticks(low, high)
    west, east = left + LEFT, left + PANEL_WIDTH - RIGHT
    north, south = top + TOP, top + PANEL_HEIGHT - BOTTOM

    def x(step: float) -> float:
        return west + (east - west) * step / max(steps)

    def y(loss: float) -> float:
        return max(north, south - (south - north) * (loss - low) / (high - low))

    drawn = svg.text(left, top + 14, run, kind="title")
    drawn += svg.text(east, top + 14, unit, kind="muted small", anchor="end")
    for tick in y_ticks:
        drawn += svg.line([(west, y(tick)), (east, y(tick))], kind="grid")
        drawn += svg.text(west - 6, y(tick) + 4, f"{tick:g}", kind="muted small", anchor="end")
    drawn += svg.line([(west, south), (east, south)], kind="axis")
    for tick in x_ticks:
        anchor = "end" if tick == max(steps) else "middle"
        drawn += svg.text(x(tick), south + 17, exact_number(int(tick)), kind="muted small", anchor=anchor)
    drawn += svg.line([(x(step), y(loss)) for step, loss in zip(steps, losses, strict=True)], kind="raw")
    return drawn + svg.line([(x(step), y(loss)) for step, loss in zip(steps, bold, strict=True)], kind="curve")


def _smoothed(values: Sequence[float]) -> list[float]:
    """Means over what is near: centred at the steep start, whose values differ, and as long as can be at the end."""
    means = []
    for at in range(len(values)):
        reach = min(SMOOTHING // 2, at)
        window = values[at - reach : at + reach + 1]
        means.append(sum(window) / len(window))
    return means
