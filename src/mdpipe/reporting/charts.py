"""The charts of the report: Vega-Lite specifications by Altair, one figure per question.

The page shows panels that follow its width, with tooltips; README and the documentation show the same panels as one SVG
file. Colors are CSS variables, so that both follow the reader's color scheme.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import polars as pl
import vl_convert
from jinja2 import Environment

from mdpipe.reporting.markdown import format_measurement, format_number
from mdpipe.reporting.schemas import BOUND_LOSS, EXPONENTS, FILE

COLORS = {
    "ink": ("#1f2430", "#e4e7ee"),
    "muted": ("#656d7d", "#98a1b3"),
    "edge": ("#e1e4ec", "#2d333f"),
    "gray": ("#b9c0cf", "#4d5566"),
    "card": ("#f6f7fb", "#1a1e26"),
    "accent": ("#4c5fd7", "#8b9bff"),
    "background": ("#ffffff", "#12151b"),
    "s0": ("#6c71f8", "#8996f4"),
    "s1": ("#cc9443", "#b3d90b"),
    "s2": ("#337c8c", "#3a8387"),
    "s3": ("#ab4c01", "#ad550b"),
    "s4": ("#502ab1", "#4167d5"),
    "s5": ("#77a4d5", "#bbc7ff"),
    "s6": ("#552501", "#84b68c"),
    "s7": ("#460d5b", "#bdf9c8"),
}
"""Each color on a light and on a dark background; s0, ..., s7 are distinguishable, also for color-blind readers."""
SERIES = [f"var(--{name})" for name in COLORS if name[0] == "s"]

CONFIG: dict[str, Any] = {
    "background": "transparent",
    "font": "DejaVu Sans, sans-serif",
    "view": {"stroke": None, "cornerRadius": 0},
    "axis": {
        "labelColor": "var(--muted)",
        "titleColor": "var(--muted)",
        "gridColor": "var(--edge)",
        "domainColor": "var(--gray)",
        "tickColor": "var(--gray)",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "labelLimit": 220,
    },
    "legend": {
        "labelColor": "var(--ink)",
        "labelFontSize": 12,
        "labelLimit": 300,
        "title": None,
        "orient": "bottom",
        "columns": 2,
        "symbolOpacity": 1,
        "symbolSize": 90,
    },
    "title": {"color": "var(--ink)", "fontSize": 14, "anchor": "start", "subtitleColor": "var(--muted)"},
    "text": {"color": "var(--ink)", "fontSize": 12},
    "rule": {"color": "var(--ink)"},
}
STATIC_WIDTH, HEIGHT, SVG_COLUMNS = 330, 190, 2
"""Pixels of a panel of the SVG file, and panels in a row; the page's panels have their column's width."""
BAR_HEIGHT, DOT_HEIGHT = 25, 17
"""Pixels per row."""
DIGIT_WIDTH, VALUE_GAP = 7.5, 14
"""Pixels of a character of the values after the bars, and of the gaps around them: the margin after the longest bar."""
SMOOTHING = 9
"""Rows of a training curve whose mean is the bold line."""
MAX_SYMBOLS = 40
"""Up to this many tokens, every exponent is shown with its symbol."""
EXTREMES = 15
"""Number of tokens with the largest exponents, and with the smallest, that are shown of more tokens."""
MAX_SYMBOL_LENGTH = 13
VISIBLE = {" ": "␣", "\n": "⏎", "\t": "⇥"}
LOSS = "train/loss"
CURVES = {"validation/loss": "validation bound", "train/lr": "learning rate", "train/grad_norm": "gradient norm"}
"""Titles of the other columns of a training curve; a column that is not among them has its name as title."""
ERRORS = {"validation/loss": "validation/stderr"}
"""Columns of a training curve with standard errors."""

Panel = alt.LayerChart | alt.FacetChart
"""A chart as `alt.layer` returns it."""
GRAY_LINE: dict[str, Any] = {"color": "var(--gray)", "strokeWidth": 2}


@dataclass(frozen=True)
class Chart:
    """A figure of panels next to each other, and its alternative text."""

    panels: Sequence[Panel]
    alt: str
    files: Sequence[str] = ()
    """The files that its numbers come from."""

    def to_specs(self) -> list[dict[str, Any]]:
        """Return the Vega-Lite specification of each panel, as wide as its container."""
        return [
            _specification(panel.properties(width="container", autosize={"type": "fit-x", "contains": "padding"}))
            for panel in self.panels
        ]

    def to_svg(self) -> str:
        """Return all panels in one SVG document without links, for pages that show it as an image.

        Equal charts give equal bytes.
        """
        panels = (panel.properties(width=STATIC_WIDTH) for panel in self.panels)
        figure = alt.concat(*panels, columns=min(SVG_COLUMNS, len(self.panels)), spacing=30).resolve_scale(
            color="independent", shape="independent"
        )
        specification = _specification(figure.properties(description=self.alt))
        for layer in (layer for panel in specification["concat"] for layer in panel["layer"]):
            layer["encoding"].pop("href", None)
        svg = vl_convert.vegalite_to_svg(specification)
        opening, rest = svg.split(">", 1)
        title = Environment(autoescape=True).from_string("<title>{{ alt }}</title>").render(alt=self.alt)
        return f"{opening}>{title}<style>{color_scheme()}</style>{rest}"


def color_scheme() -> str:
    """Return the CSS that gives every color its value on light and on dark backgrounds."""
    light, dark = ("; ".join(f"--{name}: {pair[mode]}" for name, pair in COLORS.items()) for mode in (0, 1))
    return f":root {{ {light} }} @media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}"


def _specification(chart: alt.TopLevelMixin) -> dict[str, Any]:
    with alt.data_transformers.disable_max_rows():
        specification: dict[str, Any] = chart.configure(**CONFIG).to_dict()
    return specification


def files_of(*frames: pl.DataFrame) -> list[str]:
    """Return the files of the rows of frames in their order, each once."""
    return list(dict.fromkeys(file for frame in frames if FILE in frame.columns for file in frame[FILE]))


def link_marks(marks: alt.Chart, field: str, frame: pl.DataFrame) -> alt.Chart:
    """Let a click on a mark open the file of its number, which a field identifies, if the frame has files.

    The page is in a folder next to those of the files.
    """
    if FILE not in frame.columns:
        return marks
    links = json.dumps(dict(frame.select(field, pl.format("../{}", FILE)).iter_rows()))
    return marks.transform_calculate(href=f"({links})[datum.{field}]").encode(href="href:N")


def hover_points(base: alt.Chart, frame: pl.DataFrame) -> alt.Chart:
    """Return invisible points of a line, for tooltips and links."""
    return link_marks(base.mark_point(opacity=0, size=80), "run", frame)


def y_axis(field: str, title: str) -> alt.Y:
    """Return a y axis that need not begin at 0."""
    return alt.Y(field, title=title, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5))


def run_colors(runs: Sequence[str], in_legend: Sequence[str] | None = None) -> alt.Color:
    """Return a color per run; the legend shows lines of the runs `in_legend`, or of all."""
    legend = alt.Legend(symbolType="stroke", symbolStrokeWidth=3, values=in_legend or runs)
    return alt.Color("run:N", scale=alt.Scale(domain=runs, range=SERIES), legend=legend)


def as_text(convert: Callable[[Any], str], *columns: str) -> pl.Expr:
    """Return the text of each value, or of each row of several columns."""
    values = pl.col(*columns) if len(columns) == 1 else pl.concat_list(*columns)
    return values.map_elements(convert, return_dtype=pl.String, skip_nulls=False)


def error_bar(value: str, stderr: str) -> dict[str, pl.Expr]:
    """Return the columns `low` and `high`, one stderr away, and `shown`, the value and its error for a tooltip."""
    error = pl.col(stderr).fill_null(0)
    shown = as_text(lambda pair: format_measurement(*pair), value, stderr)
    return {"low": pl.col(value) - error, "high": pl.col(value) + error, "shown": shown}


def likelihood_chart(likelihood: pl.DataFrame) -> Chart:
    """Show the likelihood table as bars, one panel per (dataset, split): error bars of one stderr, fewest bits on top.

    Text is in bits/byte, which does not depend on the tokenizer; images are in the table's own unit, bits/dim. A
    reference without a rate in that unit is left out. A bound given the class label says so after its name.
    """
    frames = likelihood.partition_by("dataset", "split", maintain_order=True)
    description = "Bits of every run (blue) and reference (gray); fewer are better."
    return Chart([_bars(frame) for frame in frames], description, files=sorted(files_of(likelihood)))


def _bars(frame: pl.DataFrame) -> Panel:
    dataset, split, modality, unit = frame.drop_nulls("run").select("dataset", "split", "modality", "unit").row(0)
    if modality == "text":
        unit, frame = "bits/byte", frame.with_columns(value="bits_per_byte", stderr="bits_per_byte_stderr")
    else:
        frame = frame.filter(unit=unit)
    reference = pl.when(pl.col("run").is_null())
    linked_rows = (
        frame.drop_nulls("value")
        .sort("value", maintain_order=True)
        .select(
            pl.col(f"^(value|{FILE})$"),
            name=pl.concat_str(
                pl.coalesce("run", "estimator"),
                "class_cond",
                reference.then(pl.lit("reference")),
                separator=", ",
                ignore_nulls=True,
            ),
            color=reference.then(pl.lit("var(--gray)")).otherwise(pl.lit("var(--accent)")),
            **error_bar("value", "stderr"),
        )
        .rename({"shown": "bits"})
    )
    rows = linked_rows.drop(FILE, strict=False)
    margin = DIGIT_WIDTH * max(map(len, rows["bits"])) + VALUE_GAP
    end = alt.ExprRef(f"{max(rows['high'])} / max(1 - {margin} / (width || {STATIC_WIDTH}), 1 / 2)")  # SVG: no width
    base = alt.Chart(rows, height=BAR_HEIGHT * rows.height).encode(
        y=alt.Y("name:N", sort=None, title=None, axis=alt.Axis(labelColor="var(--ink)", ticks=False, domain=False)),
        tooltip=[alt.Tooltip("name:N", title="run"), alt.Tooltip("bits:N", title=unit)],
    )
    scale = alt.Scale(domainMin=0, domainMax=end, nice=False)
    bars = base.mark_bar(height=alt.RelativeBandSize(0.6)).encode(
        x=alt.X("value:Q", title=unit, scale=scale, axis=alt.Axis(tickCount=6)), color=alt.Color("color:N", scale=None)
    )
    return alt.layer(
        link_marks(bars, "name", linked_rows),
        base.mark_rule(strokeWidth=2).encode(x="low:Q", x2="high:Q"),
        base.mark_text(align="left", dx=7).encode(x="high:Q", text="bits:N"),
        title=alt.TitleParams(dataset, subtitle=f"{split} split"),
    )


def curves_table(curves: Mapping[str, pl.DataFrame], trained: pl.DataFrame) -> pl.DataFrame:
    """Return the losses and validations of all runs, with a `panel` for each dataset and kind of loss.

    Args:
        curves: As of `training_charts`.
        trained: As of `training_charts`.
    """
    parts = []
    for row in trained.iter_rows(named=True):
        curve, bound = curves[row["run"]], f"{row['dataset']}, validation bound ({row['unit']})"
        panels = {LOSS: f"{row['dataset']}, {_loss_title(row['training_loss'], row['unit'])}", "validation/loss": bound}
        parts += [
            curve.select("run", "step", panel=pl.lit(panel), loss=pl.col(name).cast(pl.Float64)).drop_nulls()
            for name, panel in panels.items()
            if name in curve.columns
        ]
    return pl.concat(parts)


def training_charts(curves: Mapping[str, pl.DataFrame], trained: pl.DataFrame) -> dict[str, Chart]:
    """Show training curves, one figure per dataset with all of its runs: the loss, and every other column by step.

    Runs with different training losses have different panels: only a bound has a unit.

    Args:
        curves: A curve per run, with the columns `run`, `step` and `train/loss` at least.
        trained: The columns run, dataset, training_loss (`BOUND_LOSS` or its weight), and unit, that of the
            bound; one row per run.
    """
    charts = {}
    run_files = pl.concat([curve.select("run", pl.col(f"^{FILE}$")).head(1) for curve in curves.values()])
    for frame in trained.partition_by("dataset", maintain_order=True):
        dataset, runs, unit = frame["dataset"][0], frame["run"].to_list(), "/".join(sorted(set(frame["unit"])))
        data = pl.concat([curves[run] for run in runs], how="diagonal_relaxed")
        panels = []
        for loss in sorted(set(frame["training_loss"])):
            title = _loss_title(loss, unit)
            of_loss = pl.col("run").is_in(frame.filter(training_loss=loss)["run"].to_list())
            panels.append(_curve(data.filter(of_loss), LOSS, title, runs, run_files))
        names = [name for name in {**CURVES, **data.schema} if name in data.columns and data[name].count()]
        for name in names:
            if name not in ("step", "run", FILE, LOSS, *ERRORS.values()):
                title = CURVES.get(name, name) + (f" ({unit})" if name in ERRORS else "")
                panels.append(_curve(data, name, title, runs, run_files))
        description = f"Training on {dataset} of {', '.join(runs)}, by step"
        errors = "; error bars of validations are one standard error" if ERRORS.keys() & set(names) else ""
        charts[dataset] = Chart(panels, f"{description}{errors}.", files=files_of(data))
    return charts


def _loss_title(loss: str, unit: str) -> str:
    """Return the title of a training loss, with the unit only of a bound."""
    return f"training loss ({unit})" if loss == BOUND_LOSS else f"training loss, {loss}"


def _curve(data: pl.DataFrame, name: str, title: str, runs: list[str], run_files: pl.DataFrame) -> Panel:
    """Show every record as a thin line, and means of up to `SMOOTHING` as a bold one.

    Rates stay as they are, and so do values with errors, which have error bars.
    """
    error, value = ERRORS.get(name), pl.col("value")
    is_exact = error is not None or "lr" in name
    mean = value if is_exact else value.rolling_mean(SMOOTHING, min_samples=1, center=True)
    columns = {"value": name} | ({"stderr": error} if error in data.columns else {})
    rows = data.select("step", "run", **columns).drop_nulls("value").sort("run", "step")
    rows = rows.with_columns(mean=mean.over("run"))
    color = run_colors(runs, [run for run in runs if run in rows["run"]])
    base = alt.Chart(rows, height=HEIGHT).encode(
        x=alt.X("step:Q", title="step", axis=alt.Axis(format=",d", tickMinStep=1, tickCount=6)),
        y=y_axis("mean:Q", title),
        color=color,
        tooltip=["run:N", "step:Q", alt.Tooltip("value:Q", title=title, format=".5g")],
    )
    marks = [base.mark_line(strokeWidth=2), hover_points(base, run_files)]
    if "stderr" in columns:
        ends = error_bar("value", "stderr")
        bars = (
            alt.Chart(rows.with_columns(**ends))
            .mark_rule()
            .encode(x="step:Q", y=alt.Y("low:Q", title=title), y2="high:Q", color=color)
        )
        return alt.layer(bars, *marks)
    return alt.layer(base.mark_line(strokeWidth=1, opacity=0.3).encode(y="value:Q"), *marks)


def exponents_chart(exponents: Mapping[str, pl.DataFrame], ordered: Mapping[str, bool]) -> Chart:
    """Show the exponent w_i of every token's schedule alpha_i(t) = 1 - t^w_i, by run; the gray line is their mean.

    Sampling runs t from 1, where all is masked, to 0. At every t between, a larger w_i makes t^w_i smaller and token i
    more likely to be unmasked already: a large exponent means unmasked early, a small one late.

    Args:
        exponents: Frames with the columns `run` and `EXPONENTS`.
        ordered: True if the tokens have an order, as gray levels do: many of them are then shown as a curve.
    """
    panels: list[Panel] = []
    frames = [frame for _, frame in sorted(exponents.items())]
    for frame in frames:
        rows = frame.select(*EXPONENTS, "run", name=as_text(_make_visible, "symbol"), mean=pl.col("exponent").mean())
        count, is_long = rows.height, rows.height > MAX_SYMBOLS
        if is_long and ordered[frame["run"][0]]:
            panels.append(_exponent_curve(rows, frame))
            continue
        descending = rows.sort("exponent", descending=True, maintain_order=True)
        first = EXTREMES if is_long else math.ceil(count / 2)
        parts = {"largest": descending.head(first), "smallest": descending.tail(min(first, count - first))}
        panels += [_exponent_dots(part, frame, kind) for kind, part in parts.items() if part.height]
    description = f"Exponents of {', '.join(sorted(exponents))}; tokens with a large one are unmasked early."
    return Chart(panels, description, files=files_of(*frames))


def _exponent_dots(rows: pl.DataFrame, frame: pl.DataFrame, kind: str) -> Panel:
    unique = pl.when(pl.col("name").is_duplicated()).then(pl.format("{} ({})", "name", "token")).otherwise("name")
    scale = alt.Scale(domain=[min(frame["exponent"]), max(frame["exponent"])], zero=False)
    base = alt.Chart(rows.with_columns(name=unique), height=DOT_HEIGHT * rows.height).encode(
        x=alt.X("exponent:Q", title="exponent w (unmasked late ← → early)", scale=scale, axis=alt.Axis(tickCount=5)),
        y=alt.Y("name:N", sort=None, title=None, axis=alt.Axis(labelColor="var(--ink)", domain=False)),
        tooltip=["name:N", "token:Q", alt.Tooltip("exponent:Q", format=".5g")],
    )
    note = f"the {rows.height} {kind} of {format_number(frame.height)}"
    return alt.layer(
        alt.Chart(rows.head(1)).mark_rule(**GRAY_LINE).encode(x="mean:Q"),
        link_marks(base.mark_point(filled=True, opacity=1, size=60, color="var(--s0)"), "run", frame),
        title=alt.TitleParams(frame["run"][0], subtitle=note),
    )


def _exponent_curve(rows: pl.DataFrame, frame: pl.DataFrame) -> Panel:
    base = alt.Chart(rows, height=HEIGHT).encode(
        x=alt.X("token:Q", title="token", scale=alt.Scale(domain=[0, rows.height - 1], nice=False)),
        y=y_axis("exponent:Q", "exponent w (late ← → early)"),
        tooltip=["name:N", alt.Tooltip("exponent:Q", format=".5g")],
    )
    return alt.layer(
        alt.Chart(rows.head(1)).mark_rule(**GRAY_LINE).encode(y="mean:Q"),
        base.mark_line(color="var(--s0)"),
        hover_points(base, frame),
        title=alt.TitleParams(frame["run"][0], subtitle=f"all {format_number(rows.height)} tokens"),
    )


def _make_visible(symbol: str | None) -> str:
    """Return the symbol in visible characters; a long one is cut off."""
    marked = "".join(
        VISIBLE.get(letter, letter if letter.isprintable() else letter.encode("unicode_escape").decode())
        for letter in symbol or "(empty)"
    )
    return marked if len(marked) <= MAX_SYMBOL_LENGTH else marked[: MAX_SYMBOL_LENGTH - 1] + "…"
