"""The charts of what a bound is made of: bits by share of hidden tokens and by position, and calibration."""

from collections.abc import Mapping
from pathlib import Path

import altair as alt
import polars as pl

from mdpipe.reporting.charts import HEIGHT, SERIES, Chart, Panel, linked
from mdpipe.reporting.markdown import format_measurement, format_number

SHARES: dict[str, type[pl.Float64]] = dict.fromkeys(("share", "bits", "bits_stderr"), pl.Float64)
POSITIONS = {"first": pl.Int64, "last": pl.Int64, "bits": pl.Float64, "bits_stderr": pl.Float64, "tokens": pl.Int64}
CALIBRATION = {
    "share": pl.String,
    **dict.fromkeys(("confidence", "frequency", "stderr", "weight", "calibration_error"), pl.Float64),
}
"""Columns of the plots of the stage evaluate; a standard error is null if it is unknown."""

MAX_BANDS = 2
"""With more runs in one panel, their bands of standard errors would cover each other: only tooltips have the errors."""


def profile_chart(
    shares: Mapping[str, pl.DataFrame],
    positions: Mapping[str, pl.DataFrame],
    unit: str,
    files: tuple[Mapping[str, Path], Mapping[str, Path]] = ({}, {}),
) -> Chart:
    """Show the runs of one dataset: bits by share of hidden tokens, and by position, bands of one stderr for few runs.

    Args:
        shares: one frame with the columns `SHARES` per run.
        positions: one frame with the columns `POSITIONS` per run.
        unit: of the bits.
        files: the file of each run's shares, and of its positions; empty for points without links.
    """
    of_shares, of_positions = files
    by_share = pl.concat([frame.with_columns(run=pl.lit(run), where="share") for run, frame in shares.items()])
    where = (pl.col("first") + pl.col("last")) / 2
    label = (
        pl.when(pl.col("first") == pl.col("last"))
        .then(pl.col("first"))
        .otherwise(pl.format("{} to {}", "first", "last"))
    )
    by_position = pl.concat(
        [frame.with_columns(run=pl.lit(run), where=where, label=label) for run, frame in positions.items()]
    )
    panels = [
        _bits(
            by_share.with_columns(label=pl.Series([f"{share:.1%}" for share in by_share["share"]], dtype=pl.String)),
            list(shares),
            "share of hidden tokens",
            alt.X("where:Q", axis=alt.Axis(format="%", tickCount=5)),
            f"{unit}, of a hidden token",
            of_shares,
        ),
        _bits(
            by_position,
            list(positions),
            "position",
            alt.X("where:Q", axis=alt.Axis(format=",d", tickCount=6), scale=alt.Scale(nice=False)),
            f"{unit}, of the bound",
            of_positions,
        ),
    ]
    names = ", ".join(shares)
    errors = "bands of one standard error" if len(shares) <= MAX_BANDS else "standard errors are in the tooltips"
    return Chart(panels, f"Bits of {names} by share of hidden tokens and by position; {errors}.")


def _bits(rows: pl.DataFrame, runs: list[str], where: str, x: alt.X, title: str, files: Mapping[str, Path]) -> Panel:
    stderr = pl.col("bits_stderr").fill_null(0)
    rows = rows.select(
        *("run", "where", "label", "bits"),
        low=pl.col("bits") - stderr,
        high=pl.col("bits") + stderr,
        shown=pl.Series([format_measurement(*pair) for pair in rows.select("bits", "bits_stderr").iter_rows()]),
    )
    base = alt.Chart(rows, height=1.3 * HEIGHT).encode(
        x=x.title(where),
        y=alt.Y("bits:Q", title=title, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5)),
        color=alt.Color(
            "run:N",
            scale=alt.Scale(domain=runs, range=SERIES),
            legend=alt.Legend(symbolType="stroke", symbolStrokeWidth=3),
        ),
        tooltip=[
            *("run:N", alt.Tooltip("label:N", title=where), alt.Tooltip("shown:N", title=title)),
        ],
    )
    band = base.mark_area(opacity=0.2).encode(y=alt.Y("low:Q", title=title), y2="high:Q")
    lines = (base.mark_line(strokeWidth=1.5), linked(base.mark_point(opacity=0, size=80), "run", files))
    return alt.layer(*([band] if len(runs) <= MAX_BANDS else []), *lines)


def calibration_chart(calibration: Mapping[str, pl.DataFrame], files: Mapping[str, Path] | None = None) -> Chart:
    """Show a reliability diagram per run: frequency by confidence, one line for each part of shares of hidden tokens.

    The diagonal is perfect calibration. Below it, the denoiser is too sure. Error bars are one stderr.

    Args:
        calibration: one frame with the columns `CALIBRATION` per run.
        files: the file of each frame, or None for points without links.
    """
    panels = [_reliability(run, frame, files or {}) for run, frame in calibration.items()]
    explanation = (
        "how often the most probable token is the true one, by its probability, for three shares of hidden tokens"
    )
    return Chart(panels, f"Calibration of {', '.join(calibration)}: {explanation}.")


def _reliability(run: str, frame: pl.DataFrame, files: Mapping[str, Path]) -> Panel:
    whole, *_ = frame["share"]
    error = frame.filter(share=whole)["calibration_error"][0]
    parts = frame.filter(pl.col("share") != whole)
    names = parts["share"].unique(maintain_order=True).to_list()
    stderr = pl.col("stderr").fill_null(0)
    rows = parts.select(
        *("share", "confidence", "frequency"),
        run=pl.lit(run),
        low=pl.col("frequency") - stderr,
        high=pl.col("frequency") + stderr,
        shown=pl.Series([format_measurement(*pair) for pair in parts.select("frequency", "stderr").iter_rows()]),
        tokens=pl.Series([f"{weight:.1%}" for weight in parts["weight"]], dtype=pl.String),
        part_error=pl.Series([format_number(value) for value in parts["calibration_error"]], dtype=pl.String),
    )
    unit = alt.Scale(domain=[0, 1], clamp=True)
    axis = alt.Axis(format="%", tickCount=5)
    base = alt.Chart(rows, height=1.2 * HEIGHT).encode(
        x=alt.X("confidence:Q", title="probability of the most probable token", scale=unit, axis=axis),
        y=alt.Y("frequency:Q", title="it is the true one", scale=unit, axis=axis),
        color=alt.Color(
            "share:N", scale=alt.Scale(domain=names, range=SERIES[: len(names)]), legend=alt.Legend(columns=3)
        ),
        tooltip=[
            *(alt.Tooltip("share:N", title="share of hidden tokens"), alt.Tooltip("confidence:Q", format=".1%")),
            *(alt.Tooltip("shown:N", title="frequency"), alt.Tooltip("tokens:N", title="of the predictions")),
            alt.Tooltip("part_error:N", title="calibration error of this share"),
        ],
    )
    ends = pl.DataFrame({"confidence": [0.0, 1.0], "frequency": [0.0, 1.0]})
    diagonal = (
        alt.Chart(ends).mark_line(color="var(--gray)", strokeDash=[4, 3]).encode(x="confidence:Q", y="frequency:Q")
    )
    return alt.layer(
        diagonal,
        base.mark_rule().encode(y="low:Q", y2="high:Q"),
        base.mark_line(strokeWidth=1.5),
        linked(base.mark_point(filled=True, opacity=1, size=45), "run", files),
        title=alt.TitleParams(run, subtitle=f"calibration error {format_number(error)}"),
    )
