"""The charts of the report: Vega-Lite specifications by Altair, one figure per question.

The page shows panels that follow its width, with tooltips; README and the documentation show the same panels as one SVG
file. Colors are CSS variables, so that both follow the reader's color scheme.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import altair as alt
import polars as pl
import vl_convert
from jinja2 import Environment

from mdpipe.reporting.markdown import format_measurement, format_number

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
"""Each color on a light and on a dark background; all eyes can tell s0, ..., s7 apart, color-blind ones too."""
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
STATIC_WIDTH, HEIGHT = 330, 190
"""Pixels of a panel of the SVG file; the page's panels have their column's width."""
BAR_HEIGHT, DOT_HEIGHT = 25, 17
"""Pixels per row."""
DIGIT_WIDTH, VALUE_GAP = 7.5, 14
"""Pixels of a character of the values after the bars, and of the gaps around them: the longest bar leaves this room."""
SMOOTHING = 9
"""Rows of a training curve whose mean is the bold line."""
MAX_SYMBOLS = 40
"""Up to this many tokens, every exponent is shown with its symbol."""
EXTREMES = 15
"""Number of tokens with the largest exponents, and with the smallest, that are shown of more tokens."""
MAX_SYMBOL_LENGTH = 13
VISIBLE = {" ": "␣", "\n": "⏎", "\t": "⇥"}
CURVES = {"train/loss": "loss", "train/lr": "learning rate", "train/grad_norm": "gradient norm"}
"""Titles of the columns of a training curve; a column that is not among them has its name as title."""

NO_FILES: Mapping[str, Path] = MappingProxyType({})
"""For charts without links."""
Panel = alt.LayerChart | alt.FacetChart
"""What `alt.layer` returns."""


@dataclass(frozen=True)
class Chart:
    """A figure of panels next to each other, and the text that says what it shows where it cannot be seen."""

    panels: Sequence[Panel]
    alt: str
    columns: int = 2
    files: Sequence[Path] = ()
    """The files that its numbers come from."""

    def to_specs(self) -> list[dict[str, Any]]:
        """Return the Vega-Lite specification of each panel, as wide as what it is put into."""
        return [
            _specification(panel.properties(width="container", autosize={"type": "fit-x", "contains": "padding"}))
            for panel in self.panels
        ]

    def to_svg(self) -> str:
        """Return all panels in one SVG document without links, for pages that show it as an image.

        Equal charts give equal bytes.
        """
        panels = (panel.properties(width=STATIC_WIDTH) for panel in self.panels)
        whole = alt.concat(*panels, columns=self.columns, spacing=30).resolve_scale(
            color="independent", shape="independent"
        )
        specification = _specification(whole.properties(description=self.alt))
        _drop_links(specification)
        svg = vl_convert.vegalite_to_svg(specification)
        head, rest = svg.split(">", 1)
        title = Environment(autoescape=True).from_string("<title>{{ alt }}</title>").render(alt=self.alt)
        return f"{head}>{title}<style>{color_scheme()}</style>{rest}"


def color_scheme() -> str:
    """Return the CSS that gives every color its value on light and on dark backgrounds."""
    light, dark = ("; ".join(f"--{name}: {pair[mode]}" for name, pair in COLORS.items()) for mode in (0, 1))
    return f":root {{ {light} }} @media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}"


def _specification(chart: alt.TopLevelMixin) -> dict[str, Any]:
    with alt.data_transformers.disable_max_rows():
        specification: dict[str, Any] = chart.configure(**CONFIG).to_dict()
    return specification


def _drop_links(specification: dict[str, Any]) -> None:
    specification.get("encoding", {}).pop("href", None)
    for part in (*specification.get("concat", ()), *specification.get("layer", ())):
        _drop_links(part)


def linked(marks: alt.Chart, field: str, files: Mapping[str, Path]) -> alt.Chart:
    """Let a click on a mark open the file of its number, found by the mark's field; the page is in a folder beside."""
    if not files:
        return marks
    links = json.dumps({name: f"../{file}" for name, file in files.items()})
    return marks.transform_calculate(href=f"({links})[datum.{field}]").encode(href="href:N")


def y_axis(field: str, title: str) -> alt.Y:
    """Return a y axis that need not begin at 0."""
    return alt.Y(field, title=title, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5))


def run_colors(runs: Sequence[str]) -> alt.Color:
    """Return a color per run, with lines in the legend."""
    legend = alt.Legend(symbolType="stroke", symbolStrokeWidth=3)
    return alt.Color("run:N", scale=alt.Scale(domain=runs, range=SERIES), legend=legend)


def error_bar(frame: pl.DataFrame, value: str, stderr: str) -> dict[str, pl.Expr | pl.Series]:
    """Return the columns `low` and `high`, one stderr away, and `shown`, the value and its error for a tooltip."""
    error = pl.col(stderr).fill_null(0)
    shown = pl.Series([format_measurement(*pair) for pair in frame.select(value, stderr).iter_rows()])
    return {"low": pl.col(value) - error, "high": pl.col(value) + error, "shown": shown}


def likelihood_chart(likelihood: pl.DataFrame, files: Sequence[Path] = ()) -> Chart:
    """Show the likelihood table as bars, one panel per (dataset, split): error bars of one stderr, fewest bits on top.

    Text is in bits/byte, which does not depend on the tokenizer; images are in the table's own unit, bits/dim. A
    reference without a rate in that unit is left out. A bound given the class label says so after its name.

    Args:
        likelihood: the table.
        files: the file of each row, or none for bars without links.
    """
    if files:
        likelihood = likelihood.with_columns(file=pl.Series(map(str, files), dtype=pl.String))
    frames = likelihood.partition_by("dataset", "split", maintain_order=True)
    what = "Bits of every run (blue) and reference (gray); fewer are better."
    return Chart([_bars(frame) for frame in frames], what, files=sorted(set(files)))


def _bars(frame: pl.DataFrame) -> Panel:
    model = frame.drop_nulls("run").row(0, named=True)
    if model["modality"] == "text":
        unit, rows = "bits/byte", frame.with_columns(value="bits_per_byte", stderr="bits_per_byte_stderr")
    else:
        unit, rows = model["unit"], frame.filter(unit=model["unit"])
    rows = rows.drop_nulls("value").sort("value", maintain_order=True)
    reference = pl.when(pl.col("run").is_null()).then(pl.lit("reference"))
    rows = rows.select(
        pl.col("^(value|file)$"),
        name=pl.concat_str(
            [pl.coalesce("run", "estimator"), "class_cond", reference], separator=", ", ignore_nulls=True
        ),
        color=pl.when(pl.col("run").is_null()).then(pl.lit("var(--gray)")).otherwise(pl.lit("var(--accent)")),
        **error_bar(rows, "value", "stderr"),
    ).rename({"shown": "bits"})
    files = dict(rows.select("name", "file").iter_rows()) if "file" in rows.columns else {}
    rows = rows.select(pl.all().exclude("^file$"))
    room = DIGIT_WIDTH * max(map(len, rows["bits"])) + VALUE_GAP
    end = alt.ExprRef(f"{max(rows['high'])} / max(1 - {room} / (width || {STATIC_WIDTH}), 1 / 2)")  # SVG: no width
    base = alt.Chart(rows, height=BAR_HEIGHT * rows.height).encode(
        y=alt.Y("name:N", sort=None, title=None, axis=alt.Axis(labelColor="var(--ink)", ticks=False, domain=False)),
        tooltip=[alt.Tooltip("name:N", title="run"), alt.Tooltip("bits:N", title=unit)],
    )
    scale = alt.Scale(domainMin=0, domainMax=end, nice=False)
    x = alt.X("value:Q", title=unit, scale=scale, axis=alt.Axis(tickCount=6))
    layers = (
        linked(base.mark_bar(height=alt.RelativeBandSize(0.6)), "name", files).encode(
            x=x, color=alt.Color("color:N", scale=None)
        ),
        base.mark_rule(strokeWidth=2).encode(x="low:Q", x2="high:Q"),
        base.mark_text(align="left", dx=7).encode(x="high:Q", text="bits:N"),
    )
    return alt.layer(*layers, title=alt.TitleParams(model["dataset"], subtitle=f"{model['split']} split"))


def training_charts(
    curves: Mapping[str, pl.DataFrame], trained: pl.DataFrame, files: Mapping[str, Path] = NO_FILES
) -> dict[str, Chart]:
    """Show training curves, one figure per dataset with all of its runs: the loss, and every other column by step.

    Args:
        curves: one per run, with the columns `step` and `train/loss` (bits per token) at least.
        trained: the columns run, dataset and unit, one row per run.
        files: the file of each curve, or none for points without links.
    """
    charts = {}
    for frame in trained.partition_by("dataset", maintain_order=True):
        dataset, runs, units = frame["dataset"][0], frame["run"].to_list(), sorted(set(frame["unit"]))
        data = pl.concat([curves[run].with_columns(run=pl.lit(run)) for run in runs], how="diagonal_relaxed")
        names = [name for name in data.columns if name not in ("step", "run")]
        panels = [_curve(data, name, runs, "/".join(units), files) for name in names if data[name].count()]
        shown = [files[run] for run in runs if run in files]
        charts[dataset] = Chart(panels, f"Training on {dataset} of {', '.join(runs)}, by step.", 1, shown)
    return charts


def _curve(data: pl.DataFrame, name: str, runs: list[str], unit: str, files: Mapping[str, Path]) -> Panel:
    """Show every record as a thin line, and means of up to `SMOOTHING` as a bold one; rates stay as they are."""
    title = CURVES.get(name, name)
    label = f"{title} ({unit})" if "loss" in name else title
    mean = pl.col("value") if "lr" in name else pl.col("value").rolling_mean(SMOOTHING, min_samples=1, center=True)
    rows = data.select("step", "run", value=name).drop_nulls().sort("run", "step").with_columns(mean=mean.over("run"))
    base = alt.Chart(rows, height=HEIGHT).encode(
        x=alt.X("step:Q", title="step", axis=alt.Axis(format=",d", tickMinStep=1, tickCount=6)),
        y=y_axis("mean:Q", label),
        color=run_colors(runs),
        tooltip=["run:N", "step:Q", alt.Tooltip("value:Q", title=title, format=".5g")],
    )
    thin = base.mark_line(strokeWidth=1, opacity=0.3).encode(y="value:Q")
    points = linked(base.mark_point(opacity=0, size=80), "run", files)
    return alt.layer(thin, base.mark_line(strokeWidth=2), points)


def exponents_chart(
    exponents: Mapping[str, pl.DataFrame], ordered: Mapping[str, bool], files: Mapping[str, Path] = NO_FILES
) -> Chart:
    """Show the exponent w_i of every token's schedule alpha_i(t) = 1 - t^w_i, by run; the gray line is their mean.

    Sampling runs t from 1, where all is masked, to 0. At every t between, a larger w_i makes t^w_i smaller and token i
    more likely to be unmasked already: a large exponent means unmasked early, a small one late.

    Args:
        exponents: frames with the columns `EXPONENTS`.
        ordered: whether the tokens have an order, as gray levels do: many of them are then shown as a curve.
        files: the file of each run's exponents, or none for points without links.
    """
    panels = []
    for run, frame in sorted(exponents.items()):
        rows = frame.with_columns(name=pl.Series(map(_visible, frame["symbol"])), mean=pl.col("exponent").mean())
        rows, of_run = rows.with_columns(run=pl.lit(run)), {run: files[run]} if files else {}
        if ordered[run] and frame.height > MAX_SYMBOLS:
            panels.append(_exponent_curve(run, rows, of_run))
            continue
        falling = rows.sort("exponent", descending=True, maintain_order=True)
        count = EXTREMES if frame.height > MAX_SYMBOLS else math.ceil(frame.height / 2)
        halves = {"largest": falling.head(count), "smallest": falling.tail(min(count, frame.height - count))}
        for which, half in halves.items():
            if half.height:
                note = f"the {half.height} {which} of {format_number(frame.height)}"
                title = alt.TitleParams(run, subtitle=note)
                panels.append(_exponent_dots(title, half, [*frame["exponent"]], of_run))
    what = f"Exponents of {', '.join(sorted(exponents))}; tokens with a large one are unmasked early."
    return Chart(panels, what, files=list(files.values()))


def _exponent_dots(
    title: alt.TitleParams, rows: pl.DataFrame, all_exponents: list[float], files: Mapping[str, Path]
) -> Panel:
    scale = alt.Scale(domain=[min(all_exponents), max(all_exponents)], zero=False)
    unique = pl.when(pl.col("name").is_duplicated()).then(pl.format("{} ({})", "name", "token")).otherwise("name")
    base = alt.Chart(rows.with_columns(name=unique), height=DOT_HEIGHT * rows.height).encode(
        x=alt.X("exponent:Q", title="exponent w (unmasked late ← → early)", scale=scale, axis=alt.Axis(tickCount=5)),
        y=alt.Y("name:N", sort=None, title=None, axis=alt.Axis(labelColor="var(--ink)", domain=False)),
        tooltip=["name:N", "token:Q", alt.Tooltip("exponent:Q", format=".5g")],
    )
    return alt.layer(
        alt.Chart(rows.head(1)).mark_rule(color="var(--gray)", strokeWidth=2).encode(x="mean:Q"),
        linked(base.mark_point(filled=True, opacity=1, size=60, color="var(--s0)"), "run", files),
        title=title,
    )


def _exponent_curve(run: str, rows: pl.DataFrame, files: Mapping[str, Path]) -> Panel:
    base = alt.Chart(rows, height=HEIGHT).encode(
        x=alt.X("token:Q", title="token", scale=alt.Scale(domain=[0, rows.height - 1], nice=False)),
        y=y_axis("exponent:Q", "exponent w (late ← → early)"),
        tooltip=["name:N", alt.Tooltip("exponent:Q", format=".5g")],
    )
    return alt.layer(
        alt.Chart(rows.head(1)).mark_rule(color="var(--gray)", strokeWidth=2).encode(y="mean:Q"),
        base.mark_line(color="var(--s0)"),
        linked(base.mark_point(opacity=0, size=80), "run", files),
        title=alt.TitleParams(run, subtitle=f"all {format_number(rows.height)} tokens"),
    )


def _visible(symbol: str | None) -> str:
    """Return the symbol in characters that can all be seen, the end of a long one cut off."""
    if not symbol:
        return "(empty)"
    marked = "".join(
        VISIBLE.get(letter, letter if letter.isprintable() else letter.encode("unicode_escape").decode())
        for letter in symbol
    )
    return marked if len(marked) <= MAX_SYMBOL_LENGTH else marked[: MAX_SYMBOL_LENGTH - 1] + "…"
