"""The charts of evaluations: the profile of a bound, its calibration, and the comparison of samplers."""

import math
from typing import Any

import altair as alt
import polars as pl

from mdpipe.reporting.charts import (
    GRAY_LINE,
    HEIGHT,
    SERIES,
    Chart,
    Panel,
    as_text,
    error_bar,
    files_of,
    hover_points,
    link_marks,
    run_colors,
    y_axis,
)
from mdpipe.reporting.markdown import format_number
from mdpipe.reporting.schemas import DATA

SHAPES = ["circle", "square", "triangle-up", "diamond", "triangle-down"]
"""Shapes of points; their number has no common divisor with that of the colors, so that 40 pairs differ."""
MAX_BANDS = 2
"""Runs with bands of standard errors in a panel; more would cover each other, and only tooltips have the errors."""
PERCENT = "{:.1%}".format


def profile_chart(mask_fractions: pl.DataFrame, positions: pl.DataFrame, unit: str) -> Chart:
    """Show the runs of one dataset: bits by masked fraction, and by position, bands of one stderr for few runs.

    Args:
        mask_fractions: The columns `run` and `MASK_FRACTIONS`.
        positions: The columns `run` and `POSITIONS`.
        unit: Unit of the bits.
    """
    first, last = pl.col("first"), pl.col("last")
    position = pl.when(first == last).then(first).otherwise(pl.format("{} to {}", first, last))
    mask_fractions = mask_fractions.with_columns(where="mask_fraction", label=as_text(PERCENT, "mask_fraction"))
    positions = positions.with_columns(where=(first + last) / 2, label=position)
    by_mask_fraction = alt.X("where:Q", axis=alt.Axis(format="%", tickCount=5))
    by_position = alt.X("where:Q", axis=alt.Axis(format=",d", tickCount=6), scale=alt.Scale(nice=False))
    panels = [
        _bits(mask_fractions, by_mask_fraction, "masked fraction", f"{unit}, of a masked token"),
        _bits(positions, by_position, "position", f"{unit}, of the bound"),
    ]
    runs = mask_fractions["run"].unique(maintain_order=True)
    errors = "bands of one standard error" if len(runs) <= MAX_BANDS else "standard errors are in the tooltips"
    description = f"Bits of {', '.join(runs)} by masked fraction and by position; {errors}."
    return Chart(panels, description, files=files_of(mask_fractions, positions))


def _bits(frame: pl.DataFrame, x: alt.X, where: str, title: str) -> Panel:
    runs = frame["run"].unique(maintain_order=True).to_list()
    rows = frame.select("run", "where", "label", "bits", **error_bar("bits", "bits_stderr"))
    base = alt.Chart(rows, height=1.3 * HEIGHT).encode(
        x=x.title(where),
        y=y_axis("bits:Q", title),
        color=run_colors(runs),
        tooltip=["run:N", alt.Tooltip("label:N", title=where), alt.Tooltip("shown:N", title=title)],
    )
    band = base.mark_area(opacity=0.2).encode(y=alt.Y("low:Q", title=title), y2="high:Q")
    bands = [band] if len(runs) <= MAX_BANDS else []
    return alt.layer(*bands, base.mark_line(strokeWidth=1.5), hover_points(base, frame))


def calibration_chart(calibration: pl.DataFrame) -> Chart:
    """Show a reliability diagram per run: frequency by confidence, one line for each range of masked fractions.

    The diagonal is perfect calibration. Below it, the denoiser is overconfident. Error bars are one stderr.

    Args:
        calibration: The columns `run` and `CALIBRATION`.
    """
    panels = [_reliability(frame, calibration) for frame in calibration.partition_by("run", maintain_order=True)]
    runs = ", ".join(calibration["run"].unique(maintain_order=True))
    description = "how often the most probable token is the true one, by its probability and by masked fraction"
    return Chart(panels, f"Calibration of {runs}: {description}.", files=files_of(calibration))


def _reliability(frame: pl.DataFrame, all_runs: pl.DataFrame) -> Panel:
    run, all_fractions, error = frame.select("run", "mask_fraction", "calibration_error").row(0)
    rows = frame.filter(pl.col("mask_fraction") != all_fractions).select(
        *("mask_fraction", "confidence", "frequency", "run"),
        **error_bar("frequency", "stderr"),
        tokens=as_text(PERCENT, "weight"),
        part_error=as_text(format_number, "calibration_error"),
    )
    names = rows["mask_fraction"].unique(maintain_order=True).to_list()
    unit = alt.Scale(domain=[0, 1], clamp=True)
    axis = alt.Axis(format="%", tickCount=5)
    base = alt.Chart(rows, height=1.2 * HEIGHT).encode(
        x=alt.X("confidence:Q", title="probability of the most probable token (%)", scale=unit, axis=axis),
        y=alt.Y("frequency:Q", title="how often it is the true token (%)", scale=unit, axis=axis),
        color=alt.Color(
            "mask_fraction:N",
            scale=alt.Scale(domain=names, range=SERIES[: len(names)]),
            legend=alt.Legend(columns=3, title="masked fraction", titleColor="var(--muted)", titleFontWeight="normal"),
        ),
        tooltip=[
            *(alt.Tooltip("mask_fraction:N", title="masked fraction"), alt.Tooltip("confidence:Q", format=".1%")),
            *(alt.Tooltip("shown:N", title="frequency"), alt.Tooltip("tokens:N", title="of the predictions")),
            alt.Tooltip("part_error:N", title="calibration error of this range"),
        ],
    )
    ends = alt.Chart(pl.DataFrame({"confidence": [0.0, 1.0], "frequency": [0.0, 1.0]}))
    return alt.layer(
        ends.mark_line(color="var(--gray)", strokeDash=[4, 3]).encode(x="confidence:Q", y="frequency:Q"),
        base.mark_rule().encode(y="low:Q", y2="high:Q"),
        base.mark_line(strokeWidth=1.5),
        link_marks(base.mark_point(filled=True, opacity=1, size=45), "run", all_runs),
        title=alt.TitleParams(run, subtitle=f"calibration error {format_number(error)}"),
    )


def samplers_chart(samplers: pl.DataFrame) -> Chart:
    """Show a `samplers_table`, for each (run, reference model) in one panel, or in two if there are temperatures.

    The first has bits against NFE on a logarithmic scale at temperature 1. A sampler without a time grid is a point.
    The gray line is the held-out data under the same reference model. The second, the frontier, has bits against the
    entropy of samples at the largest number of steps, one line per sampler over temperatures; the held-out data are a
    point. Error bars are one stderr.
    """
    panels, by = [], "NFE"
    for frame in samplers.partition_by("run", "reference_model", maintain_order=True):
        panels.append(_bits_by_nfe(frame, samplers))
        if frame["temperature"].drop_nulls().n_unique() > 1:
            panels.append(_frontier(frame, samplers))
            by = "NFE and by the samples' entropy over temperatures"
    description = f"Bits of samples of {', '.join(samplers['run'].unique().sort())} under a reference model, by {by}"
    return Chart(panels, f"{description}, one line per sampler; gray: held-out data.", files=sorted(files_of(samplers)))


def _bits_by_nfe(frame: pl.DataFrame, samplers: pl.DataFrame) -> Panel:
    rows = _sampler_rows(frame.filter(pl.col("temperature").is_null() | (pl.col("temperature") == 1)))
    calls = rows["nfe"].drop_nulls().to_list() or [1]
    powers = [2**power for power in range(math.floor(math.log2(min(calls))), math.ceil(math.log2(max(calls))) + 1)]
    axis, scale = alt.Axis(values=powers, format=",d"), alt.Scale(type="log", base=2)
    x = alt.X("nfe:Q", title="network calls (NFE)", scale=scale, axis=axis)
    tooltip = [alt.Tooltip("shown:N", title="held-out data")]
    data = alt.Chart(rows.filter(sampler=DATA)).encode(y="bits:Q", tooltip=tooltip)
    return alt.layer(
        link_marks(data.mark_rule(**GRAY_LINE), "run", samplers),
        *_sampler_marks(rows, frame, samplers, x=x)[1:],
        title=frame["run"][0],
    )


def _frontier(frame: pl.DataFrame, samplers: pl.DataFrame) -> Panel:
    has_most_steps = pl.col("steps").is_null() | (pl.col("steps") == pl.col("steps").max())
    rows = _sampler_rows(frame.filter(has_most_steps))
    title = ["entropy of a sample's tokens, bits", "(repetitive ← → diverse)"]  # Two lines fit on a phone.
    x = alt.X("entropy_per_sample:Q", title=title, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5))
    tooltip = [alt.Tooltip("shown:N", title="held-out data"), alt.Tooltip("entropy:N")]
    data = alt.Chart(rows.filter(sampler=DATA)).encode(x=x, y="bits:Q", tooltip=tooltip)
    cross = data.mark_point(filled=True, opacity=1, size=160, shape="cross", color="var(--gray)")
    base, *marks = _sampler_marks(rows, frame, samplers, x=x, order="temperature:Q")
    temperatures = ", ".join(f"{value:g}" for value in rows["temperature"].drop_nulls().unique().sort())
    return alt.layer(
        link_marks(cross, "run", samplers),
        *marks,
        base.mark_rule().encode(x="left:Q", x2="right:Q"),
        title=alt.TitleParams(frame["run"][0], subtitle=f"temperatures {temperatures}; cross: held-out data"),
    )


def _sampler_rows(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the rows with the ends of the error bars of bits and, as `left` and `right`, of the entropy."""
    entropy = error_bar("entropy_per_sample", "entropy_per_sample_stderr")
    return frame.select(
        *("run", "sampler", "nfe", "temperature", "bits", "entropy_per_sample"),
        **error_bar("bits", "bits_stderr"),
        left=entropy["low"],
        right=entropy["high"],
        entropy=entropy["shown"],
    )


def _sampler_marks(rows: pl.DataFrame, frame: pl.DataFrame, samplers: pl.DataFrame, **channels: Any) -> list[alt.Chart]:
    """Return a chart of the samplers' bits, its lines, error bars and points; samplers look the same in every panel."""
    names = samplers.filter(pl.col("sampler") != DATA)["sampler"].unique().sort().to_list()
    colors, shapes = (alt.Scale(domain=names, range=(values * len(names))[: len(names)]) for values in (SERIES, SHAPES))
    reference_model, unit = frame.select("reference_model", "unit").row(0)
    base = alt.Chart(rows.filter(pl.col("sampler") != DATA), height=1.3 * HEIGHT).encode(
        y=y_axis("bits:Q", f"{unit} under {reference_model}"),
        color=alt.Color("sampler:N", scale=colors),
        tooltip=[
            *("sampler:N", "temperature:Q", alt.Tooltip("nfe:Q", title="NFE")),
            *(alt.Tooltip("shown:N", title=unit), alt.Tooltip("entropy:N", title="entropy per sample")),
        ],
        **channels,
    )
    points = link_marks(base.mark_point(filled=True, opacity=1, size=60), "run", samplers)
    errors = base.mark_rule().encode(y="low:Q", y2="high:Q")
    return [base, base.mark_line(), errors, points.encode(shape=alt.Shape("sampler:N", scale=shapes))]
