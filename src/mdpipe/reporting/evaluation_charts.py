"""The charts of what was evaluated: what a bound is made of, its calibration, and the comparison of samplers."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import altair as alt
import polars as pl

from mdpipe.reporting.charts import HEIGHT, NO_FILES, SERIES, Chart, Panel, error_bar, linked, run_colors, y_axis
from mdpipe.reporting.markdown import format_number
from mdpipe.reporting.schemas import DATA

SHAPES = ["circle", "square", "triangle-up", "diamond", "triangle-down"]
"""As many as have no common divisor with the colors, so that 40 pairs differ."""
MAX_BANDS = 2
"""With more runs in one panel, their bands of standard errors would cover each other: only tooltips have the errors."""


def profile_chart(
    shares: Mapping[str, pl.DataFrame],
    positions: Mapping[str, pl.DataFrame],
    unit: str,
    files: tuple[Mapping[str, Path], Mapping[str, Path]] = (NO_FILES, NO_FILES),
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
    what = f"Bits of {names} by share of hidden tokens and by position; {errors}."
    return Chart(panels, what, files=[*of_shares.values(), *of_positions.values()])


def _bits(rows: pl.DataFrame, runs: list[str], where: str, x: alt.X, title: str, files: Mapping[str, Path]) -> Panel:
    rows = rows.select("run", "where", "label", "bits", **error_bar(rows, "bits", "bits_stderr"))
    base = alt.Chart(rows, height=1.3 * HEIGHT).encode(
        x=x.title(where),
        y=y_axis("bits:Q", title),
        color=run_colors(runs),
        tooltip=["run:N", alt.Tooltip("label:N", title=where), alt.Tooltip("shown:N", title=title)],
    )
    band = base.mark_area(opacity=0.2).encode(y=alt.Y("low:Q", title=title), y2="high:Q")
    lines = (base.mark_line(strokeWidth=1.5), linked(base.mark_point(opacity=0, size=80), "run", files))
    return alt.layer(*([band] if len(runs) <= MAX_BANDS else []), *lines)


def calibration_chart(calibration: Mapping[str, pl.DataFrame], files: Mapping[str, Path] = NO_FILES) -> Chart:
    """Show a reliability diagram per run: frequency by confidence, one line for each part of shares of hidden tokens.

    The diagonal is perfect calibration. Below it, the denoiser is too sure. Error bars are one stderr.

    Args:
        calibration: one frame with the columns `CALIBRATION` per run.
        files: the file of each frame, or none for points without links.
    """
    panels = [_reliability(run, frame, files) for run, frame in calibration.items()]
    what = "how often the most probable token is the true one, by its probability, for three shares of hidden tokens"
    return Chart(panels, f"Calibration of {', '.join(calibration)}: {what}.", files=list(files.values()))


def _reliability(run: str, frame: pl.DataFrame, files: Mapping[str, Path]) -> Panel:
    whole, *_ = frame["share"]
    error = frame.filter(share=whole)["calibration_error"][0]
    parts = frame.filter(pl.col("share") != whole)
    names = parts["share"].unique(maintain_order=True).to_list()
    rows = parts.select(
        *("share", "confidence", "frequency"),
        run=pl.lit(run),
        **error_bar(parts, "frequency", "stderr"),
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


def samplers_chart(samplers: pl.DataFrame, files: Sequence[Path] = ()) -> Chart:
    """Show a `samplers_table`, for each (run, reference model) in one panel, or in two if there are temperatures.

    The first has bits against NFE on a logarithmic scale at temperature 1. A sampler without a time grid is a point.
    The gray line is the held-out data under the same reference model. The second, the frontier, has bits against the
    entropy of samples at the largest number of steps, one line per sampler over temperatures; the held-out data are a
    point. Error bars are one stderr.

    Args:
        samplers: the table.
        files: the file of each row, or none for points without links.
    """
    by_run = dict(zip(samplers["run"], files, strict=True)) if files else {}
    names = sorted(set(samplers["sampler"]) - {DATA})
    panels = []
    for frame in samplers.partition_by("run", "reference_model", maintain_order=True):
        panels.append(_bits_by_nfe(frame, names, by_run))
        if frame["temperature"].drop_nulls().n_unique() > 1:
            panels.append(_frontier(frame, names, by_run))
    runs = ", ".join(samplers["run"].unique().sort())
    pairs = samplers.select("run", "reference_model").n_unique()
    by = "NFE" if len(panels) == pairs else "NFE and by the samples' entropy over temperatures"
    what = f"Bits of samples of {runs} under a reference model, by {by}"
    return Chart(panels, f"{what}, one line per sampler; gray: held-out data.", files=sorted(set(files)))


def _bits_by_nfe(frame: pl.DataFrame, names: list[str], files: Mapping[str, Path]) -> Panel:
    rows, base = _bits_of_samplers(frame.filter(pl.col("temperature").is_null() | (pl.col("temperature") == 1)), names)
    calls = rows["nfe"].drop_nulls().to_list() or [1]
    powers = [2**power for power in range(math.floor(math.log2(min(calls))), math.ceil(math.log2(max(calls))) + 1)]
    by_nfe = base.encode(
        x=alt.X(
            "nfe:Q",
            title="network calls (NFE)",
            scale=alt.Scale(type="log", base=2),
            axis=alt.Axis(values=powers, format=",d"),
        )
    )
    data = alt.Chart(rows.filter(sampler=DATA)).encode(
        y="bits:Q", tooltip=[alt.Tooltip("shown:N", title="held-out data")]
    )
    return alt.layer(
        linked(data.mark_rule(color="var(--gray)", strokeWidth=2), "run", files),
        *_marks(by_nfe, names, files),
        title=frame["run"][0],
    )


def _frontier(frame: pl.DataFrame, names: list[str], files: Mapping[str, Path]) -> Panel:
    most = frame.filter(pl.col("steps").is_null() | (pl.col("steps") == pl.col("steps").max()))
    rows, base = _bits_of_samplers(most, names)
    x = alt.X(
        "entropy_per_sample:Q",
        title="entropy of a sample's tokens, bits (repetitive ← → diverse)",
        scale=alt.Scale(zero=False),
        axis=alt.Axis(tickCount=5),
    )
    by_entropy = base.encode(x=x, order="temperature:Q")
    across = by_entropy.mark_rule().encode(x="left:Q", x2="right:Q")
    tooltip = [alt.Tooltip("shown:N", title="held-out data"), alt.Tooltip("entropy:N")]
    data = alt.Chart(rows.filter(sampler=DATA)).encode(x=x, y="bits:Q", tooltip=tooltip)
    temperatures = ", ".join(f"{value:g}" for value in rows["temperature"].drop_nulls().unique().sort())
    return alt.layer(
        linked(data.mark_point(filled=True, opacity=1, size=160, shape="cross", color="var(--gray)"), "run", files),
        *_marks(by_entropy, names, files),
        across,
        title=alt.TitleParams(frame["run"][0], subtitle=f"temperatures {temperatures}; cross: held-out data"),
    )


def _bits_of_samplers(frame: pl.DataFrame, names: list[str]) -> tuple[pl.DataFrame, alt.Chart]:
    """Return the rows with the ends of error bars, and a chart of the samplers' bits without an x axis."""
    reference_model, unit = frame.select("reference_model", "unit").row(0)
    across = error_bar(frame, "entropy_per_sample", "entropy_per_sample_stderr")
    rows = frame.select(
        *("run", "sampler", "nfe", "temperature", "bits", "entropy_per_sample"),
        **error_bar(frame, "bits", "bits_stderr"),
        left=across["low"],
        right=across["high"],
        entropy=across["shown"],
    )
    base = alt.Chart(rows.filter(pl.col("sampler") != DATA), height=1.3 * HEIGHT).encode(
        y=y_axis("bits:Q", f"{unit} under {reference_model}"),
        color=alt.Color("sampler:N", scale=alt.Scale(domain=names, range=(SERIES * len(names))[: len(names)])),
        tooltip=[
            *("sampler:N", "temperature:Q", alt.Tooltip("nfe:Q", title="NFE")),
            *(alt.Tooltip("shown:N", title=unit), alt.Tooltip("entropy:N", title="entropy per sample")),
        ],
    )
    return rows, base


def _marks(base: alt.Chart, names: list[str], files: Mapping[str, Path]) -> list[alt.Chart]:
    shapes = alt.Scale(domain=names, range=(SHAPES * len(names))[: len(names)])
    return [
        base.mark_line(),
        base.mark_rule().encode(y="low:Q", y2="high:Q"),
        linked(base.mark_point(filled=True, opacity=1, size=60), "run", files).encode(
            shape=alt.Shape("sampler:N", scale=shapes)
        ),
    ]
