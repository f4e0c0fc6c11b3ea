"""Cost of every stage: what Snakemake and its job measured, with the sizes that `mdpipe plan` knows."""

import csv
import math
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from mdpipe.benchmarks.runner import describe_machine, to_json
from mdpipe.commands.plan import TERA, Plan
from mdpipe.data.artifacts.files import atomic_write
from mdpipe.networks.runtime import compute_device
from mdpipe.params import Params
from mdpipe.pipeline import paths

MEASURED = {"seconds": "s", "cpu_seconds": "cpu_time", "peak_mib": "max_rss"}
"""Snakemake's name of each measurement. Of the CPU seconds it misses a part; those of the job are complete."""


def record_stages(params: Params, threads: int, folder: Path, out: Path) -> None:
    """Write one result for each stage of params that was measured, with the day of the newest measurement, as JSON.

    Raises:
        FileNotFoundError: No stage was measured.
    """
    results, spans = [], []
    for row in Plan(params).rows():
        if not (path := folder / f"{row.stage}.tsv").exists():
            continue
        with path.open(newline="", encoding="utf-8") as file:
            measured = list(csv.DictReader(file, delimiter="\t"))[-1]
        end = path.stat().st_mtime
        spans.append((end - float(measured["s"]), end))
        if (job := paths.CPU_SECONDS_DIR / row.stage).exists():
            measured["cpu_time"] = job.read_text(encoding="utf-8")
        results.append(
            {
                "stage": row.stage,
                **{name: float(measured[column]) for name, column in MEASURED.items()},
                "tokens": None if math.isnan(row.tokens) else round(row.tokens),
                "tflop": None if math.isnan(row.flops) else float(f"{row.flops / TERA:.4g}"),
            }
        )
    if not results:
        raise FileNotFoundError(f"{folder} has no measurement of a stage; `snakemake` measures each that it runs")
    document = {
        "date": datetime.fromtimestamp(max(end for _, end in spans), UTC).date().isoformat(),
        "params": params.md5,
        "machine": describe_machine(compute_device().type, threads),
        "wall_seconds": round(_covered(spans), 1),
        "results": results,
    }
    atomic_write(out, to_json(document).encode())


def _covered(spans: Iterable[tuple[float, float]]) -> float:
    """Return the time during which a stage ran: the length of the union of the spans."""
    covered, latest = 0.0, -math.inf
    for start, end in sorted(spans):
        covered += max(0.0, end - max(start, latest))
        latest = max(latest, end)
    return covered
