"""Cost of every stage: what Snakemake and its job measured, with the sizes that `mdpipe plan` knows."""

import csv
import math
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
    results, times = [], []
    for row in Plan(params).rows():
        if not (path := folder / f"{row.stage}.tsv").exists():
            continue
        with path.open(newline="", encoding="utf-8") as file:
            measured = list(csv.DictReader(file, delimiter="\t"))[-1]
        times.append(path.stat().st_mtime)
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
    day, machine = datetime.fromtimestamp(max(times), UTC).date(), describe_machine(compute_device().type, threads)
    document = {"date": day.isoformat(), "params": params.md5, "machine": machine, "results": results}
    atomic_write(out, to_json(document).encode())
