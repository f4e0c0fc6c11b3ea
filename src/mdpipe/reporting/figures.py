"""The figures of the report: likelihoods, training curves, samplers compared, and learned schedules."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullLocator

from mdpipe.data.artifacts.metrics import MetricsError
from mdpipe.reporting.markdown import format_measurement, format_number
from mdpipe.reporting.style import (
    COLUMNS,
    GRAY,
    HEADING_HEIGHT,
    INK,
    LEGEND_HEIGHT,
    MARGIN,
    MARKERS,
    MAX_TICKS,
    MEAN,
    MODEL,
    MUTED,
    PANEL_HEIGHT,
    SERIES,
    Chart,
    add_legend,
    axis_range,
    format_whole_numbers,
    in_style,
    legend_columns,
    new_figure,
    new_panels,
    round_ticks,
    set_titles,
)
from mdpipe.reporting.tables import DATA, EXPONENTS

BAR_ROW_HEIGHT, BAR_HEIGHT = 25, 0.6
"""Pixels per row, and the fraction of it that its bar fills."""
VALUE_ROOM = 1.45
"""Length of the axis by the longest bar, to write the values after the bars."""
SMOOTHING = 9
"""Rows of a training curve whose mean is the bold line."""
MIN_RANGE = 0.1
"""Bits that an axis spans at least: curves that are flat should look flat."""
MAX_SYMBOLS = 40
"""Up to this many tokens, every exponent is shown with its symbol."""
EXTREMES = 15
"""Number of tokens with the largest exponents, and with the smallest, that are shown of more tokens."""
DOT_ROW_HEIGHT = 16
MAX_SYMBOL_LENGTH = 13
MIN_EXPONENT_RANGE = 0.02
DIRECTIONS = "← unmasked late · unmasked early →"
VISIBLE = {" ": "␣", "\n": "⏎", "\t": "⇥"}


@in_style
def likelihood_chart(likelihood: pl.DataFrame) -> Chart:
    """Draw the likelihood table as bars, one panel per (dataset, split): error bars of one stderr, fewest bits on top.

    Text is in bits/byte, which does not depend on the tokenizer; images are in the table's own unit, bits/dim. A
    reference without a rate in that unit is left out. A bound given the class label says so after its name.

    Raises:
        ValueError: the table has no rows.
    """
    if not likelihood.height:
        raise ValueError("there is no likelihood to draw: the table has no rows")
    panels = [_bars(frame) for _, frame in likelihood.group_by("dataset", "split", maintain_order=True)]
    most = [max(bars.height for _, bars in panels[at : at + COLUMNS]) for at in range(0, len(panels), COLUMNS)]
    heights = [HEADING_HEIGHT + BAR_ROW_HEIGHT * rows for rows in most]
    figure = new_figure(sum(heights) + LEGEND_HEIGHT)
    grid = figure.subplots(len(most), COLUMNS, squeeze=False, height_ratios=heights)
    for at, (unit, bars) in enumerate(panels):
        _draw_bars(grid.flat[at], unit, bars, most[at // COLUMNS])
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    add_legend(figure, [Patch(color=MODEL, label="model"), Patch(color=GRAY, label="reference")])
    return Chart(figure, "Bits per unit of every run and of its references; fewer are better.")


def _bars(frame: pl.DataFrame) -> tuple[str, pl.DataFrame]:
    """Return the unit, and the rows that have a value in it, fewest bits first."""
    model = frame.filter(pl.col("run").is_not_null()).row(0, named=True)
    if model["modality"] == "text":
        unit, rows = "bits/byte", frame.with_columns(value="bits_per_byte", stderr="bits_per_byte_stderr")
    else:
        unit, rows = model["unit"], frame.filter(pl.col("unit") == model["unit"])
    return unit, rows.drop_nulls("value").sort("value", maintain_order=True)


def _draw_bars(axes: Axes, unit: str, bars: pl.DataFrame, rows: int) -> None:
    """Draw the bars in as many rows, so that they are as thick as those of a fuller panel."""
    dataset, split = bars.select("dataset", "split").row(0)
    names = bars.select(pl.coalesce("run", "estimator"), "class_cond").rows()
    is_model = bars["run"].is_not_null().to_list()
    values, errors, ends = bars["value"].to_list(), bars["stderr"].to_list(), []
    axes.barh(range(bars.height), values, BAR_HEIGHT, color=[MODEL if model else GRAY for model in is_model])
    for row, (value, stderr) in enumerate(zip(values, errors, strict=True)):
        if stderr:
            axes.errorbar(value, row, xerr=stderr, color=INK, elinewidth=1.5, capsize=3, capthick=1.5)
        ends.append(value + (stderr or 0))
        shown = format_measurement(value, stderr)
        axes.annotate(shown, (ends[row], row), (7, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(bars.height), [", ".join(filter(None, pair)) for pair in names])
    for label, model in zip(axes.get_yticklabels(), is_model, strict=True):
        label.set_color(INK if model else MUTED)
    axes.set_ylim(rows - 0.4, -0.6)
    axes.set_xlim(0, VALUE_ROOM * max(ends))
    round_ticks(axes.xaxis)
    axes.grid(axis="x")
    set_titles(axes, dataset, split)
    axes.set_xlabel(unit)


@in_style
def training_chart(curves: Mapping[str, pl.DataFrame], units: Mapping[str, str]) -> Chart:
    """Draw loss against step, one panel per run, by name.

    Args:
        curves: one per run, with the columns `step` and `train/loss` (bits per token).
        units: the unit of each run's loss: bits/dim for images.

    Raises:
        ValueError: there are no curves, or one of them has no rows.
    """
    if not curves:
        raise ValueError("there are no training curves to draw")
    figure, panels = new_panels(len(curves))
    for axes, run in zip(panels, sorted(curves), strict=True):
        if not curves[run].height:
            raise ValueError(f"the training curve of run {run!r} has no rows")
        steps, losses = curves[run]["step"].to_list(), curves[run]["train/loss"].to_list()
        smoothed = _smooth(losses)
        axes.plot(steps, losses, color=MODEL, alpha=0.3, linewidth=1)
        axes.plot(steps, smoothed, color=MODEL, linewidth=2)
        low = min(losses)
        high = max(*smoothed, low + MIN_RANGE)
        axes.set_xlim(0, max(steps) * (1 + MARGIN))
        axes.set_ylim(low - MARGIN * (high - low), high + MARGIN * (high - low))
        round_ticks(axes.xaxis, integer=True)
        format_whole_numbers(axes.xaxis)
        round_ticks(axes.yaxis)
        axes.grid(axis="y")
        set_titles(axes, run)
        axes.set_xlabel("step")
        axes.set_ylabel(f"loss ({units[run]})")
    lines = [
        Line2D([], [], color=MODEL, alpha=0.3, linewidth=1, label="recorded loss"),
        Line2D([], [], color=MODEL, linewidth=2, label=f"mean of up to {SMOOTHING} records"),
    ]
    add_legend(figure, lines)
    return Chart(figure, f"Training loss of {', '.join(sorted(curves))}, in bits, by step.")


def _smooth(values: Sequence[float]) -> list[float]:
    """Return centered means over up to `SMOOTHING` values, over fewer at the steep start and at the end."""
    means = []
    for at in range(len(values)):
        reach = min(SMOOTHING // 2, at)
        window = values[at - reach : at + reach + 1]
        means.append(sum(window) / len(window))
    return means


@in_style
def samplers_chart(samplers: pl.DataFrame) -> Chart:
    """Draw a `samplers_table`: bits against NFE on a logarithmic scale, one panel per (run, reference model).

    Error bars are one stderr. A sampler without a time grid is a point. The gray line is the held-out data under the
    same reference model.

    Raises:
        ValueError: the table has no rows.
    """
    if not samplers.height:
        raise ValueError("there are no samplers to draw: the table has no rows")
    names = sorted(set(samplers["sampler"]) - {DATA})
    looks: dict[str, dict[str, Any]] = {
        name: {"color": SERIES[at % len(SERIES)], "marker": MARKERS[at % len(MARKERS)], "markersize": 6}
        for at, name in enumerate(names)
    }
    groups = [frame for _, frame in samplers.group_by("run", "reference_model", maintain_order=True)]
    entries = [Line2D([], [], label=name, **look) for name, look in looks.items()]
    entries.append(Line2D([], [], color=MEAN, label="held-out data"))
    figure, panels = new_panels(len(groups), len(entries) // legend_columns(entries) + 1)
    for axes, frame in zip(panels, groups, strict=True):
        run, reference_model, unit = frame.select("run", "reference_model", "unit").row(0)
        for bits in frame.filter(sampler=DATA)["bits"]:
            axes.axhline(bits, color=MEAN)
        drawn = frame.filter(pl.col("sampler") != DATA).sort("sampler", "nfe")
        for (name,), rows in drawn.group_by("sampler", maintain_order=True):
            calls, means, errors = (rows[column].to_list() for column in ("nfe", "bits", "bits_stderr"))
            axes.errorbar(calls, means, yerr=errors, **looks[str(name)])
        calls = drawn["nfe"].to_list() or [1]
        axes.set_xscale("log", base=2)
        axes.set_xlim(min(calls) / math.sqrt(2), max(calls) * math.sqrt(2))
        axes.set_xticks(_doubling_ticks(min(calls), max(calls)))
        axes.xaxis.set_minor_locator(NullLocator())
        format_whole_numbers(axes.xaxis)
        ends = frame.select(low=pl.col("bits") - pl.col("bits_stderr"), high=pl.col("bits") + pl.col("bits_stderr"))
        axes.set_ylim(axis_range([*ends["low"], *ends["high"]], MIN_RANGE))
        round_ticks(axes.yaxis)
        axes.grid(axis="y")
        set_titles(axes, run)
        axes.set_xlabel("network calls (NFE)")
        axes.set_ylabel(f"{unit} under {reference_model}")
    add_legend(figure, entries)
    runs = ", ".join(samplers["run"].unique().sort())
    return Chart(figure, f"Bits of samples of {runs} under a reference model by NFE, one line per sampler.")


def _doubling_ticks(low: float, high: float) -> list[int]:
    """Return at most `MAX_TICKS` powers of two around the numbers, each the same factor above the last."""
    first, last = round(math.log2(low)), round(math.log2(high))
    return [2**power for power in range(first, last + 1, math.ceil((last - first + 1) / MAX_TICKS))]


@in_style
def exponents_chart(exponents: Mapping[str, pl.DataFrame], ordered: Mapping[str, bool]) -> Chart:
    """Draw the exponent w_i of every token's schedule alpha_i(t) = 1 - t^w_i, by run; the gray line is their mean.

    Sampling runs t from 1, where all is masked, to 0. At every t between, a larger w_i makes t^w_i smaller and token i
    more likely to be unmasked already: a large exponent means unmasked early, a small one late.

    Args:
        exponents: frames with the columns `EXPONENTS`.
        ordered: whether the tokens have an order, as gray levels do: many of them are then drawn as a curve.

    Raises:
        ValueError: there are no exponents, or a run has none.
        MetricsError: a frame has other columns or types.
    """
    if not exponents:
        raise ValueError("there are no exponents to draw")
    frames = {run: _check_exponents(run, exponents[run]) for run in sorted(exponents)}
    curves = {run: ordered[run] and frame.height > MAX_SYMBOLS for run, frame in frames.items()}
    heights = [
        PANEL_HEIGHT if curves[run] else HEADING_HEIGHT + DOT_ROW_HEIGHT * (_dots_per_panel(frame) + 1)
        for run, frame in frames.items()
    ]
    figure = new_figure(sum(heights) + LEGEND_HEIGHT)
    parts = figure.subfigures(len(frames), 1, squeeze=False, height_ratios=heights).flat
    for part, (run, frame) in zip(parts, frames.items(), strict=True):
        draw = _draw_exponent_curve if curves[run] else _draw_exponent_dots
        panels = draw(part, frame)
        set_titles(panels[-1], "", f"mean {format_number(_mean(frame))} of {format_number(frame.height)} tokens")
        panels[0].set_title(run)
    dot = Line2D([], [], color=SERIES[0], marker="o", markersize=6, linestyle="none", label="exponent w of a token")
    add_legend(figure, [dot, Line2D([], [], color=MEAN, label="mean of all tokens")])
    return Chart(figure, f"Exponents of {', '.join(frames)}; a large one means unmasked early.")


def _check_exponents(run: str, frame: pl.DataFrame) -> pl.DataFrame:
    if dict(frame.schema) != EXPONENTS:
        raise MetricsError(f"the exponents of run {run!r} have the columns {frame.schema}; they should be {EXPONENTS}")
    if not frame.height:
        raise ValueError(f"run {run!r} has no exponents")
    return frame.sort("token")


def _dots_per_panel(frame: pl.DataFrame) -> int:
    return EXTREMES if frame.height > MAX_SYMBOLS else math.ceil(frame.height / 2)


def _draw_exponent_dots(figure: SubFigure, frame: pl.DataFrame) -> list[Axes]:
    """Draw the largest exponents on the left and the smallest on the right, each with its symbol."""
    falling = frame.sort("exponent", descending=True, maintain_order=True)
    count = _dots_per_panel(frame)
    halves = (falling.head(count), falling.tail(min(count, frame.height - count)))
    names = ("half", "half") if frame.height <= MAX_SYMBOLS else (str(EXTREMES),) * 2
    panels: list[Axes] = list(figure.subplots(1, COLUMNS))
    for axes, half, name, which in zip(panels, halves, names, ("larger", "smaller"), strict=True):
        axes.plot(half["exponent"], range(half.height), "o", color=SERIES[0], markersize=6)
        axes.axvline(_mean(frame), color=MEAN, zorder=0)
        axes.set_xlim(axis_range(frame["exponent"].to_list(), MIN_EXPONENT_RANGE))
        axes.set_ylim(count - 0.5, -0.5)
        axes.set_yticks(range(half.height), [_visible(symbol) for symbol in half["symbol"]])
        axes.tick_params("y", labelcolor=INK)
        round_ticks(axes.xaxis)
        axes.grid(axis="x")
        heading = f"the {which} half" if name == "half" else f"the {name} {which.replace('er', 'est')}"
        axes.set_xlabel(f"exponent w: {heading}\n{DIRECTIONS}")
    return panels


def _draw_exponent_curve(figure: SubFigure, frame: pl.DataFrame) -> list[Axes]:
    """Draw exponent against token."""
    axes = figure.subplots()
    axes.plot(frame["token"], frame["exponent"], color=SERIES[0])
    axes.axhline(_mean(frame), color=MEAN, zorder=0)
    axes.set_xlim(0, frame.height - 1)
    axes.set_ylim(axis_range(frame["exponent"].to_list(), MIN_EXPONENT_RANGE))
    ticks = [0, frame.height // 2, frame.height - 1]
    axes.set_xticks(ticks, [_visible(frame["symbol"][tick]) for tick in ticks])
    round_ticks(axes.yaxis)
    axes.grid(axis="y")
    axes.set_xlabel("token")
    axes.set_ylabel(f"exponent w\n{DIRECTIONS}")
    return [axes]


def _mean(frame: pl.DataFrame) -> float:
    exponents = frame["exponent"].to_list()
    return float(sum(exponents) / len(exponents))


def _visible(symbol: str | None) -> str:
    """Return the symbol in characters that can all be seen, the end of a long one cut off."""
    if not symbol:
        return "(empty)"
    marked = "".join(
        VISIBLE.get(letter, letter if letter.isprintable() else letter.encode("unicode_escape").decode())
        for letter in symbol
    )
    return marked if len(marked) <= MAX_SYMBOL_LENGTH else marked[: MAX_SYMBOL_LENGTH - 1] + "…"
