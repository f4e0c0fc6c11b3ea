"""The charts of the comparison of samplers: bits under a reference model by network calls, and against entropy."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import altair as alt
import polars as pl

from mdpipe.reporting.charts import HEIGHT, SERIES, Chart, Panel, linked, titled
from mdpipe.reporting.markdown import format_measurement
from mdpipe.reporting.tables import DATA

SHAPES = ["circle", "square", "triangle-up", "diamond", "triangle-down"]
"""As many as have no common divisor with the colors, so that 40 pairs differ."""


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
    return Chart(panels, f"{what}, one line per sampler; gray: held-out data.")


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
        title=titled(frame["run"][0], f"temperatures {temperatures}; cross: held-out data"),
    )


def _bits_of_samplers(frame: pl.DataFrame, names: list[str]) -> tuple[pl.DataFrame, alt.Chart]:
    """Return the rows with the ends of error bars, and a chart of the samplers' bits without an x axis."""
    reference_model, unit = frame.select("reference_model", "unit").row(0)
    error, across = pl.col("bits_stderr"), pl.col("entropy_per_sample_stderr")
    rows = frame.select(
        *("run", "sampler", "nfe", "temperature", "bits", "entropy_per_sample"),
        low=pl.col("bits") - error,
        high=pl.col("bits") + error,
        left=pl.col("entropy_per_sample") - across,
        right=pl.col("entropy_per_sample") + across,
        **{
            shown: pl.Series([format_measurement(*pair) for pair in frame.select(name, f"{name}_stderr").iter_rows()])
            for shown, name in {"shown": "bits", "entropy": "entropy_per_sample"}.items()
        },
    )
    base = alt.Chart(rows.filter(pl.col("sampler") != DATA), height=1.3 * HEIGHT).encode(
        y=alt.Y(
            "bits:Q", title=f"{unit} under {reference_model}", scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5)
        ),
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
