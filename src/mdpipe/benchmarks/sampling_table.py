"""Measurements of sampling, side by side."""

from collections.abc import Sequence

from mdpipe.benchmarks.table import Columns, Result, hardware, markdown, with_error

BASELINE = "ancestral"

COLUMNS: Columns = {
    "sampler": lambda result: result["sampler"],
    "batch": lambda result: str(result["batch"]),
    "tokens/s": lambda result: f"{result['tokens_per_second']:,.3g}",
    "x ancestral": lambda result: "" if result["times_ancestral"] is None else f"{result['times_ancestral']:.3g}",
    "seconds": lambda result: with_error(result["seconds"], result["seconds_stderr"]),
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


def page(machine: Result, command: str, results: Sequence[Result]) -> str:
    """The table, and what it takes to judge and to repeat it."""
    first = results[0]
    return f"""# Speed of sampling

    {command}

{hardware(machine)}
Sequences of {first["length"]:,} tokens from masks alone, {first["steps"]:,} steps on the uniform grid, a vocabulary \
of {first["vocabulary"]:,}; a transformer of {first["layers"]} layers, {first["heads"]} heads and width \
{first["width"]} in {first["dtype"]} ({first["parameters"]:,} weights). The weights are random: time does not depend \
on their values.

{markdown(results, COLUMNS)}
ancestral, two_stage and reveal_first draw from the same distribution; first_hitting from its limit of many steps.
Seconds are for all steps of one batch: the mean of {first["repeats"]} walks and its standard error. Where fewer steps \
were measured, every step costs the same, whatever is masked: a walk of so many steps, spread evenly from time 1 to 0, \
was run and its seconds scaled to all of them.
FLOP/s count the dense products that were run; the peak is that of a large matrix product \
({first["product_peak"] / 1e9:,.0f} GFLOP/s in the first row's process). Memory is the largest resident set of a \
process that does nothing else (on a GPU, the most that its tensors took); before is that without any sampling.
"""
