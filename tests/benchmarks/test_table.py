"""Tables of results."""

from mdpipe.benchmarks.runner import to_table
from mdpipe.benchmarks.sampling import BENCHMARK, compare

MEASURED = {
    "seconds": 2.0,
    "seconds_stderr": 0.5,
    "nfe": 3.0,
    "flops_per_second": 2e9,
    "mfu": 0.25,
    "peak_mem_mib": 1234.5,
    "peak_mem_mib_before": 300.0,
    "steps_measured": 4,
}


def result(sampler, batch, tokens_per_second):
    return {**MEASURED, "sampler": sampler, "batch": batch, "tokens_per_second": tokens_per_second}


RESULTS = [
    result("ancestral", 1, 12.0),
    result("ancestral_stepwise", 1, 3.0),
    result("ancestral", 8, 20.0),
    result("two_stage", 2, 1.0),
    result("ancestral_stepwise", 8, 8.0),
]


def test_ratios_are_to_stepwise_sampling_at_the_same_batch():
    assert [row["times_stepwise"] for row in compare(RESULTS)] == [4.0, 1.0, 2.5, None, 1.0]


def test_a_row_shows_measurements_with_their_units():
    headings, _, first, _, _, last, _ = to_table(compare(RESULTS), BENCHMARK.columns).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in (headings, first, last)]
    shown, without = (dict(zip(cells[0], row, strict=True)) for row in cells[1:])
    assert shown["tokens/s"] == "12" and shown["x stepwise"] == "4" and shown["seconds"] == "2.0 ± 0.5"
    assert shown["GFLOP/s"] == "2.0" and shown["MFU"] == "25.0%" and shown["peak MiB"] == "1,234"
    assert without["sampler"] == "two_stage" and without["x stepwise"] == ""
