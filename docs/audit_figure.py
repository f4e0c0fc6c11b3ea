"""The figure of docs/audit.md, from the audit's own functions: `python -m docs.audit_figure` writes it."""

import math
from pathlib import Path

import torch
from matplotlib.axes import Axes

from mdpipe.diffusion.objectives.base import Objective
from mdpipe.diffusion.objectives.md4 import MD4
from mdpipe.evaluation.counterexamples import (
    ASSUMED_BYTES,
    CONFIG,
    SUBTOKENS,
    JointSubtokens,
    UnweightedSnapshot,
    subtoken_source,
    token_bytes,
)
from mdpipe.evaluation.enumerated import SOURCES, Source, exact_denoiser, zipf
from mdpipe.evaluation.expected_elbo import mean_elbo
from mdpipe.params.diffusion import LinearConfig, MD4Config
from mdpipe.reporting.style import GRID, INK, MUTED, SERIES, Chart, add_legend, in_style, new_panels, set_titles

FILE = Path(__file__).parent / "pictures/audit.svg"
STEPS = (2, 4, 8, 16, 32, 64)
VALID, INVALID = SERIES[0], SERIES[3]


def bits_per_unit(objective: Objective, source: Source) -> float:
    """Return the mean of the objective with exact conditionals."""
    mean = mean_elbo(objective, exact_denoiser(objective, source.joint), source.sequences)
    return mean.over(source.probabilities).value / source.units / math.log(2)


@in_style
def draw() -> Chart:
    """Draw what meets the entropy, and what falls below it."""
    figure, (subtokens, snapshot, size, steps) = new_panels(4)
    (valid,) = subtokens.plot(
        SUBTOKENS,
        [bits_per_unit(MD4(CONFIG, subtoken_source(n).vocab_size), subtoken_source(n)) for n in SUBTOKENS],
        "o-",
        color=VALID,
        label="a bound, exact conditionals",
    )
    (invalid,) = subtokens.plot(
        SUBTOKENS,
        [bits_per_unit(JointSubtokens(subtoken_source(n).vocab_size, n), subtoken_source(n)) for n in SUBTOKENS],
        "s-",
        color=INVALID,
        label="not a bound, exact conditionals",
    )
    entropy = subtokens.axhline(subtoken_source(2).entropy / math.log(2), color=INK, dashes=(4, 3), label="entropy")
    _finish(subtokens, "Joint of sub-tokens", "bits/token", "sub-tokens per token", list(SUBTOKENS))

    coins = SOURCES["fair coins"]
    values = [bits_per_unit(objective, coins) for objective in (MD4(CONFIG, 2), UnweightedSnapshot(2))]
    snapshot.bar(["weight 1 / t", "weight 1"], values, 0.5, color=[VALID, INVALID])
    snapshot.axhline(1, color=INK, dashes=(4, 3))
    _finish(snapshot, "Unweighted snapshot", "bits/token", "fair coins")

    counted = (zipf(64) @ token_bytes().double()).item()
    tokens = bits_per_unit(MD4(CONFIG, 64), Source(zipf(64), units=1))
    assumed = torch.linspace(counted, 5, 50)
    size.plot(assumed, tokens / assumed, color=INVALID)
    size.plot([ASSUMED_BYTES], [tokens / ASSUMED_BYTES], "s", color=INVALID)
    size.plot([counted], [tokens / counted], "o", color=VALID)
    size.axhline(tokens / counted, color=INK, dashes=(4, 3))
    _finish(size, "Assumed bytes", "bits/byte", "bytes assumed per token", [round(counted, 2), 3, 4, ASSUMED_BYTES, 5])

    source = SOURCES["even parity"]
    configs = [MD4Config(schedule=LinearConfig(epsilon=0.0), timesteps=count) for count in STEPS]
    steps.plot(STEPS, [bits_per_unit(MD4(config, 2), source) for config in configs], "o-", color=VALID)
    steps.axhline(source.entropy / source.units / math.log(2), color=INK, dashes=(4, 3))
    steps.set_xscale("log", base=2)
    _finish(steps, "Steps of a bound", "bits/token", "T, even parity of 3 bits", list(STEPS))
    add_legend(figure, [valid, invalid, entropy])
    return Chart(
        figure,
        "Four charts of bits by exact conditionals against the entropy. The joint of sub-tokens, the unweighted"
        " snapshot and assumed bytes are below it; sums over marginals, weighted integrals and counted bytes meet it,"
        " and a bound in T steps falls to it.",
    )


def _finish(axes: Axes, name: str, unit: str, below: str, ticks: list[float] | None = None) -> None:
    set_titles(axes, name, unit)
    axes.set_xlabel(below)
    axes.grid(axis="y", color=GRID)
    axes.tick_params(colors=MUTED)
    if ticks is not None:
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
    else:
        axes.set_ylim(0, 1.2)


if __name__ == "__main__":
    FILE.write_text(draw().to_svg())
