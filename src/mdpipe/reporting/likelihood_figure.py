"""The overview: bits per unit of every run beside its references, one small bar chart a (dataset, split)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from mdpipe.reporting import svg
from mdpipe.reporting.rounding import measurement

COLUMNS = 2
GUTTER = 28
PANEL_WIDTH = (svg.WIDTH - GUTTER * (COLUMNS - 1)) / COLUMNS
LABEL_WIDTH, LETTER_WIDTH = 126, 7.3
"""Room for names, or for a letter of the longest where that is more, up to half the panel."""
VALUE_WIDTH = 108
HEADING_HEIGHT = 34
ROW_HEIGHT = 25
BAR_HEIGHT = 15
PANEL_GAP = 22
WHISKER = 4
"""Half the height of the cap at either end of an error bar."""


@dataclass(frozen=True)
class _Bar:
    label: str
    value: float
    stderr: float | None
    is_model: bool


def likelihood_figure(likelihood: pl.DataFrame) -> str:
    """Draw the likelihood table: models coloured, references grey, the fewest bits on top, error bars of one stderr.

    Text is in bits/byte, which does not depend on the tokenizer; images are in the table's own unit, bits/dim. A
    reference that has no number in that unit is left out. A bound given the class label says so at its name.

    Raises:
        ValueError: the table has no rows.
    """
    if not likelihood.height:
        raise ValueError("there is no likelihood to draw: the table has no rows")
    body, top = "", 0.0
    groups = likelihood.group_by("dataset", "split", maintain_order=True)
    panels = [(str(dataset), str(split), frame) for (dataset, split), frame in groups]
    for start in range(0, len(panels), COLUMNS):
        height = 0.0
        for column, (dataset, split, frame) in enumerate(panels[start : start + COLUMNS]):
            unit, bars = _bars(frame)
            body += _panel(column * (PANEL_WIDTH + GUTTER), top, f"{dataset}", f"{unit}, {split}", bars)
            height = max(height, HEADING_HEIGHT + ROW_HEIGHT * len(bars))
        top += height + PANEL_GAP
    return svg.figure(body, top - PANEL_GAP, "Bits per unit of every run and of its references; fewer are better.")


def _bars(frame: pl.DataFrame) -> tuple[str, list[_Bar]]:
    model = frame.filter(pl.col("run").is_not_null()).row(0, named=True)
    if model["modality"] == "text":
        unit, rows = "bits/byte", frame.with_columns(value="bits_per_byte", stderr="bits_per_byte_stderr")
    else:
        unit, rows = model["unit"], frame.filter(pl.col("unit") == model["unit"])
    return unit, [
        _Bar(_label(row), row["value"], row["stderr"], is_model=row["run"] is not None)
        for row in rows.drop_nulls("value").sort("value", maintain_order=True).iter_rows(named=True)
    ]


def _label(row: Mapping[str, Any]) -> str:
    """Return the name of a bar, with the condition of a bound that is not one on the data alone."""
    name: str = row["run"] or row["estimator"]
    return f"{name}, {row['condition']}" if row["condition"] else name


def _panel(left: float, top: float, title: str, unit: str, bars: Sequence[_Bar]) -> str:
    right = left + PANEL_WIDTH
    longest = LETTER_WIDTH * (max(len(shown.label) for shown in bars) + 1)
    origin = left + min(max(LABEL_WIDTH, longest), PANEL_WIDTH / 2)
    scale = (right - VALUE_WIDTH - origin) / max(shown.value + (shown.stderr or 0) for shown in bars)
    drawn = svg.text(left, top + 14, title, kind="title")
    drawn += svg.text(right, top + 14, unit, kind="muted small", anchor="end")
    drawn += svg.line([(left, top + 22), (right, top + 22)], kind="grid")
    for row, shown in enumerate(bars):
        middle = top + HEADING_HEIGHT + ROW_HEIGHT * row + BAR_HEIGHT / 2
        end = origin + scale * shown.value
        error = scale * (shown.stderr or 0)
        drawn += svg.text(origin - 8, middle + 4.5, shown.label, kind="" if shown.is_model else "muted", anchor="end")
        kind = "model" if shown.is_model else "reference"
        drawn += svg.bar(origin, middle - BAR_HEIGHT / 2, end - origin, BAR_HEIGHT, kind=kind)
        if error:
            drawn += svg.line([(end - error, middle), (end + error, middle)], kind="error")
            for cap in (end - error, end + error):
                drawn += svg.line([(cap, middle - WHISKER), (cap, middle + WHISKER)], kind="error")
        drawn += svg.text(end + error + 8, middle + 4.5, measurement(shown.value, shown.stderr), kind="small")
    return drawn
