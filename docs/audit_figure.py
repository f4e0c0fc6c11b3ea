"""The figure of docs/audit.md, from the audit's own functions: `python -m docs.audit_figure` writes it."""

import math
from collections.abc import Mapping
from pathlib import Path

import altair as alt
import polars as pl

from mdpipe.diffusion.objectives.base import Objective
from mdpipe.diffusion.objectives.md4 import MD4
from mdpipe.evaluation.audit import (
    ASSUMED_BYTES,
    CONFIG,
    COUNTED_BYTES,
    SOURCES,
    SUBTOKENS,
    JointSubtokens,
    UnweightedSnapshot,
    subtoken_source,
)
from mdpipe.evaluation.enumerated import Source, exact_mean, zipf
from mdpipe.params.diffusion import LinearConfig, MD4Config
from mdpipe.reporting.charts import HEIGHT, SERIES, Chart, Panel

FILE = Path(__file__).parent / "images/audit.svg"
DIGITS = 9
"""Decimals of what is drawn: processors differ in the last bits of a sum, and the figure should not."""
STEPS = (2, 4, 8, 16, 32, 64)
KINDS = ("a bound", "not a bound")


def bits_per_unit(objective: Objective, source: Source) -> float:
    """Return the mean of the objective with exact conditionals."""
    return exact_mean(objective, source).over(source.probabilities).value / source.units / math.log(2)


def draw() -> Chart:
    """Draw what meets the entropy, and what falls below it."""
    coins, parity = SOURCES["fair coins"], SOURCES["even parity"]
    split = {count: subtoken_source(count) for count in SUBTOKENS}
    tokens = bits_per_unit(MD4(CONFIG, 64), Source(zipf(64), units=1))
    configs = {count: MD4Config(schedule=LinearConfig(epsilon=0.0), timesteps=count) for count in STEPS}
    panels = [
        _panel(
            "Joint of sub-tokens",
            ("bits/token", "sub-tokens per token"),
            {n: bits_per_unit(MD4(CONFIG, source.vocab_size), source) for n, source in split.items()},
            {n: bits_per_unit(JointSubtokens(CONFIG, source.vocab_size), source) for n, source in split.items()},
            subtoken_source(2).entropy / math.log(2),
        ),
        _panel(
            "Unweighted snapshot",
            ("bits/token", "weight of fair coins"),
            {"1 / t": bits_per_unit(MD4(CONFIG, 2), coins)},
            {"1": bits_per_unit(UnweightedSnapshot(CONFIG, 2), coins)},
            1.0,
        ),
        _panel(
            "Assumed bytes",
            ("bits/byte", "bytes per token"),
            {f"{COUNTED_BYTES:.2f} counted": tokens / COUNTED_BYTES},
            {f"{size:g} assumed": tokens / size for size in (3, 4, ASSUMED_BYTES)},
            tokens / COUNTED_BYTES,
        ),
        _panel(
            "Steps of a bound",
            ("bits/token", "T, even parity of 3 bits"),
            {count: bits_per_unit(MD4(config, 2), parity) for count, config in configs.items()},
            {},
            parity.entropy / parity.units / math.log(2),
        ),
    ]
    return Chart(
        panels,
        "Four charts of bits by exact conditionals against the entropy. The joint of sub-tokens, the unweighted"
        " snapshot and assumed bytes are below it; sums over marginals, weighted integrals and counted bytes meet it,"
        " and a bound in T steps falls to it.",
    )


def _panel(
    title: str,
    axes: tuple[str, str],
    valid: Mapping[float | str, float],
    invalid: Mapping[float | str, float],
    entropy: float,
) -> Panel:
    """Draw the bits of bounds and of numbers that are none, and the entropy as a dashed line."""
    unit, below = axes
    bits = [
        {"x": str(x), "bits": round(value, DIGITS), "kind": kind}
        for kind, values in zip(KINDS, (valid, invalid), strict=True)
        for x, value in values.items()
    ]
    scale = alt.Scale(domain=list(KINDS), range=[SERIES[0], SERIES[3]])
    shapes = alt.Scale(domain=list(KINDS), range=["circle", "square"])
    order = list(dict.fromkeys(str(x) for x in (*valid, *invalid)))
    base = alt.Chart(pl.DataFrame(bits)).encode(
        x=alt.X("x:N", title=below, sort=order, axis=alt.Axis(labelAngle=0)),
        y=alt.Y("bits:Q", title=unit, scale=alt.Scale(zero=False, padding=12)),
        color=alt.Color("kind:N", scale=scale),
    )
    rule = alt.Chart(pl.DataFrame({"bits": [round(entropy, DIGITS)]})).mark_rule(strokeDash=[4, 3]).encode(y="bits:Q")
    points = base.mark_point(filled=True, size=70).encode(shape=alt.Shape("kind:N", scale=shapes))
    return alt.layer(rule, base.mark_line(), points).properties(title=title, height=HEIGHT)


if __name__ == "__main__":
    FILE.write_text(draw().to_svg())
