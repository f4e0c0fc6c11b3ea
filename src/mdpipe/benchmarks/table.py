"""Measurements of sampling as a table that reads the same on a terminal and in Markdown."""

import io
from collections.abc import Callable, Sequence
from typing import Any

from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

Result = dict[str, Any]

BASELINE = "ancestral"

WIDTH = 200
"""More characters than a row has, so that none is broken."""

COLUMNS: dict[str, Callable[[Result], str]] = {
    "sampler": lambda result: result["sampler"],
    "batch": lambda result: str(result["batch"]),
    "tokens/s": lambda result: f"{result['tokens_per_second']:,.3g}",
    "x ancestral": lambda result: "" if result["times_ancestral"] is None else f"{result['times_ancestral']:.3g}",
    "seconds": lambda result: _with_error(result["seconds"], result["seconds_stderr"]),
    "network calls": lambda result: f"{result['network_calls']:,.0f}",
    "GFLOP/s": lambda result: f"{result['flops_per_second'] / 1e9:,.1f}",
    "of peak": lambda result: f"{result['share_of_peak']:.1%}",
    "peak MiB": lambda result: f"{result['memory_mib']:,.0f}",
    "MiB before": lambda result: f"{result['memory_mib_before']:,.0f}",
    "steps measured": lambda result: f"{result['steps_measured']:,}",
}


def compared(results: Sequence[Result]) -> list[Result]:
    """The results with `times_ancestral`: tokens/s over the plain sampler's at that batch, None where it has none."""
    plain = {result["batch"]: result["tokens_per_second"] for result in results if result["sampler"] == BASELINE}
    return [
        {
            **result,
            "times_ancestral": result["tokens_per_second"] / plain[result["batch"]]
            if result["batch"] in plain
            else None,
        }
        for result in results
    ]


def markdown(results: Sequence[Result]) -> str:
    """One row a result, as `compared` gives them, numbers to the right."""
    table = Table(box=MARKDOWN)
    for name in COLUMNS:
        table.add_column(name, justify="left" if name == "sampler" else "right", no_wrap=True)
    for result in results:
        table.add_row(*(cell(result) for cell in COLUMNS.values()))
    console = Console(file=io.StringIO(), width=WIDTH)
    with console.capture() as captured:
        console.print(table)
    return "".join(f"{line.strip()}\n" for line in captured.get().strip().splitlines())


def page(machine: Result, command: str, results: Sequence[Result]) -> str:
    """The table, and what it takes to judge and to repeat it."""
    first = results[0]
    return f"""# Speed of sampling

    {command}

{machine["processor"]}, {machine["cores"]} cores, {machine["memory_gib"]} GiB; on {machine["device"]}, \
{first["threads"]} threads; torch {machine["torch"]}, Python {machine["python"]}; commit {machine["commit"]}.
Sequences of {first["length"]:,} tokens from masks alone, {first["steps"]:,} steps on the uniform grid, a vocabulary \
of {first["vocabulary"]:,}; a transformer of {first["layers"]} layers, {first["heads"]} heads and width \
{first["width"]} in {first["dtype"]} ({first["parameters"]:,} weights). The weights are random: time does not depend \
on their values.

{markdown(results)}
ancestral, two_stage and reveal_first draw from the same distribution; first_hitting from its limit of many steps.
Seconds are for all steps of one batch: the mean of {first["repeats"]} walks and its standard error. Where fewer steps \
were measured, every step costs the same, whatever is masked: a walk of so many steps, spread evenly from time 1 to 0, \
was run and its seconds scaled to all of them.
FLOP/s count the dense products that were run; the peak is that of a large matrix product \
({first["product_peak"] / 1e9:,.0f} GFLOP/s in the first row's process). Memory is the largest resident set of a \
process that does nothing else (on a GPU, the most that its tensors took); before is that without any sampling.
"""


def _with_error(value: float, stderr: float | None) -> str:
    return f"{value:,.1f}" if stderr is None else f"{value:,.1f} ± {stderr:,.1f}"
