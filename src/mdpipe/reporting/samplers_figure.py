"""Samplers compared: bits under the judge against network calls, one chart a run, one line a sampler."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from mdpipe.reporting import svg
from mdpipe.reporting.axes import doubling_ticks, round_ticks
from mdpipe.reporting.columns import DATA
from mdpipe.reporting.rounding import exact_number

COLUMNS = 2
GUTTER = 36
PANEL_HEIGHT = 264
PANEL_GAP = 18
LEFT, RIGHT, TOP, BOTTOM = 34, 8, 34, 44
"""Room around the plot, for numbers, the heading and the name of the axis."""
MARGIN = 0.05
"""Share of the range of bits that stays free above and below."""
LEAST_RANGE = 0.1
"""Bits from the foot of a plot to its top at least: samplers that are alike should look it."""
SIDE = math.sqrt(2)
"""Network calls start this factor below the fewest and end it above the most, so that a power of two is between."""
SAMPLE_WIDTH, LETTER_WIDTH, ENTRY_GAP, ENTRY_HEIGHT = 34, 6.4, 18, 20
"""Of an entry of the legend: its line, room for a letter of its name, and the room around it."""


@dataclass(frozen=True)
class _Look:
    """How a sampler is drawn, in every chart alike."""

    colour: str
    shape: str

    def marker(self, x: float, y: float) -> str:
        return svg.marker(x, y, self.shape, kind=f"marker {self.colour}")

    def line(self, points: list[tuple[float, float]]) -> str:
        return svg.line(points, kind=f"series {self.colour}")


def samplers_figure(samplers: pl.DataFrame) -> str:
    """Draw a table made by `samplers_comparison`: network calls on a logarithmic scale, error bars of one stderr.

    A sampler without a grid is a point. The grey line is the held-out data under the same judge.

    Raises:
        ValueError: the table has no rows.
    """
    if not samplers.height:
        raise ValueError("there are no samplers to draw: the table has no rows")
    names = sorted(set(samplers["sampler"]) - {DATA})
    looks = {
        name: _Look(f"series{at % len(svg.SERIES)}", svg.SHAPES[at % len(svg.SHAPES)]) for at, name in enumerate(names)
    }
    groups = [frame for _, frame in samplers.group_by("run", "judge", maintain_order=True)]
    columns = min(COLUMNS, len(groups))
    width = (svg.WIDTH - GUTTER * (columns - 1)) / columns
    body = ""
    for index, frame in enumerate(groups):
        left = index % columns * (width + GUTTER)
        body += _panel(left, index // columns * (PANEL_HEIGHT + PANEL_GAP), width, frame, looks)
    legend, height = _legend(-(-len(groups) // columns) * (PANEL_HEIGHT + PANEL_GAP), looks)
    runs = ", ".join(samplers["run"].unique().sort())
    return svg.figure(
        body + legend, height, f"Bits of samples of {runs} under a judge, along network calls, a line a sampler."
    )


def _panel(left: float, top: float, width: float, frame: pl.DataFrame, looks: Mapping[str, _Look]) -> str:
    drawn_samplers = frame.filter(pl.col("sampler") != DATA).sort("sampler", "network_calls")
    spread: list[float] = [
        bits + sign * error for bits, error in frame.select("bits", "bits_stderr").rows() for sign in (-1, 1)
    ]
    middle, reach = (max(spread) + min(spread)) / 2, max(max(spread) - min(spread), LEAST_RANGE) * (0.5 + MARGIN)
    calls = drawn_samplers["network_calls"].to_list() or [1]
    fewest, most = min(calls) / SIDE, max(calls) * SIDE
    west, east = left + LEFT, left + width - RIGHT
    north, south = top + TOP, top + PANEL_HEIGHT - BOTTOM

    def x(count: int) -> float:
        return west + (east - west) * math.log(count / fewest, most / fewest)

    def y(bits: float) -> float:
        return (north + south) / 2 - (south - north) / 2 * (bits - middle) / reach

    run, judge, unit = frame.select("run", "judge", "unit").row(0)
    drawn = svg.text(left, top + 14, run, kind="title")
    drawn += svg.text(east, top + 14, f"{unit} under {judge}", kind="muted small", anchor="end")
    for tick in round_ticks(middle - reach, middle + reach):
        drawn += svg.line([(west, y(tick)), (east, y(tick))], kind="grid")
        drawn += svg.text(west - 6, y(tick) + 4, f"{tick:g}", kind="muted small", anchor="end")
    drawn += svg.line([(west, south), (east, south)], kind="axis")
    for tick in doubling_ticks(fewest, most):
        drawn += svg.line([(x(tick), south), (x(tick), south + 4)], kind="axis")
        drawn += svg.text(x(tick), south + 17, exact_number(tick), kind="muted small", anchor="middle")
    drawn += svg.text((west + east) / 2, south + 34, "network calls", kind="muted small", anchor="middle")
    for (bits,) in frame.filter(sampler=DATA).select("bits").rows():
        drawn += svg.line([(west, y(bits)), (east, y(bits))], kind="level")
    for (name,), rows in drawn_samplers.group_by("sampler", maintain_order=True):
        look = looks[str(name)]
        measured = rows.select("network_calls", "bits", "bits_stderr").rows()
        drawn += look.line([(x(count), y(bits)) for count, bits, _ in measured])
        for count, bits, error in measured:
            drawn += look.line([(x(count), y(bits - error)), (x(count), y(bits + error))])
            drawn += look.marker(x(count), y(bits))
    return drawn


def _legend(top: float, looks: Mapping[str, _Look]) -> tuple[str, float]:
    """The entries in as many columns as fit, and the height at which they end."""
    entries = [*looks.items(), ("held-out data", None)]
    width = SAMPLE_WIDTH + LETTER_WIDTH * max(len(name) for name, _ in entries) + ENTRY_GAP
    columns = max(1, int(svg.WIDTH / width))
    drawn = ""
    for index, (name, look) in enumerate(entries):
        left, middle = index % columns * width, top + ENTRY_HEIGHT * (index // columns + 0.5)
        ends = [(left, middle), (left + SAMPLE_WIDTH - 8, middle)]
        if look:
            drawn += look.line(ends) + look.marker(left + (SAMPLE_WIDTH - 8) / 2, middle)
        else:
            drawn += svg.line(ends, kind="level")
        drawn += svg.text(left + SAMPLE_WIDTH, middle + 4, name, kind="small")
    return drawn, top + ENTRY_HEIGHT * -(-len(entries) // columns)
