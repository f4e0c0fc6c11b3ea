"""Measurements of training, side by side."""

from collections.abc import Sequence

from mdpipe.benchmarks.table import Columns, Result, hardware, markdown, with_error

COLUMNS: Columns = {
    "shape": lambda result: result["shape"],
    "parameters": lambda result: f"{result['parameters']:,}",
    "batch": lambda result: str(result["batch"]),
    "optimizer": lambda result: result["optimizer"],
    "precision": lambda result: result["precision"],
    "with": lambda result: " ".join(name for name in ("compile", "recompute") if result[name]),
    "tokens/s": lambda result: f"{result['tokens_per_second']:,.0f}",
    "examples/s": lambda result: f"{result['examples_per_second']:,.3g}",
    "ms a step": lambda result: with_error(
        1000 * result["seconds_a_step"], None if result["seconds_stderr"] is None else 1000 * result["seconds_stderr"]
    ),
    "orthogonalization": lambda result: (
        f"{result['orthogonalization_share']:.0%}" if result["optimizer"] == "muon" else ""
    ),
    "GFLOP/s": lambda result: f"{result['flops_per_second'] / 1e9:,.1f}",
    "product's peak": lambda result: f"{result['product_peak'] / 1e9:,.0f}",
    "of peak": lambda result: f"{result['share_of_peak']:.0%}",
    "peak MiB": lambda result: f"{result['memory_mib']:,.0f}",
}


def page(machine: Result, command: str, results: Sequence[Result]) -> str:
    """The table, and what it takes to judge and to repeat it."""
    first = results[0]
    return f"""# Speed of training

    {command}

{hardware(machine)}
The step of `mdpipe train` on random tokens, by {first["objective"]}: the mean of {first["steps"]} steps \
after {first["warm_up"]}, and its standard error.

{markdown(results, COLUMNS)}
FLOP/s count the network's dense products, forward and backward, over all positions; the head runs at masked positions
alone, so what it saves counts as done. The peak is that of a large matrix product in the same process and precision.
Orthogonalization is a part of Muon's step, timed by itself after each step, as a share of the whole.
Memory is the largest resident set of a process that does nothing else (on a GPU, the most that its tensors took).
"""
