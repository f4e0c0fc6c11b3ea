"""Cost of every stage: what Snakemake and its job measured, with the sizes that `mdpipe plan` knows."""

import csv
import json
import math
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mdpipe.benchmarks.runner import describe_machine, to_json
from mdpipe.commands.plan import TERA, Plan
from mdpipe.data.artifacts.files import atomic_write
from mdpipe.networks.runtime import compute_device
from mdpipe.params import Params
from mdpipe.pipeline import paths
from mdpipe.pipeline.provenance import locked_outputs, locked_stages
from mdpipe.reporting.page import RUN_ID, RUN_VARIABLE, run_facts

BENCHMARKS = Path("benchmarks")
"""The folder of Snakemake's measurements."""
MEASURED = {"seconds": "s", "cpu_seconds": "cpu_time", "peak_mib": "max_rss"}
"""Snakemake's name of each measurement. Of the CPU seconds it misses a part; those of the job are complete."""


def record_stages(params: Params, threads: int, folder: Path, out: Path) -> None:
    """Write one result for each stage of params that was measured, with the day of the newest measurement, as JSON.

    Raises:
        FileNotFoundError: No stage was measured.
    """
    atomic_write(out, to_json(_measured_run(params, threads, folder)).encode())


def show_run(params: Params) -> None:
    """Have the page show the run of this clone in place of the recorded one, if all of its stages ran here.

    The outputs of a stage in dvc.lock must be those that its job made.
    """
    paths.RUN_SCRIPT.unlink(missing_ok=True)
    locked = locked_stages()
    jobs = {row.stage: _read_job(row.stage) for row in Plan(params).rows()}
    page = (paths.REPORT / "index.html").read_text(encoding="utf-8")
    run_id = re.search(RUN_ID, page)
    if run_id and all(job.get("outputs") == locked_outputs(locked.get(stage, {})) for stage, job in jobs.items()):
        facts = run_facts(_measured_run(params, 1, BENCHMARKS))
        facts["commit"] = ", ".join(sorted({job["commit"] or "unknown" for job in jobs.values()}))
        content = json.dumps({"id": run_id[1], "facts": {"run": "of this clone, by Snakemake", **facts}})
        atomic_write(paths.RUN_SCRIPT, f"{RUN_VARIABLE} = {content};\n".encode())


def _measured_run(params: Params, threads: int, folder: Path) -> dict[str, Any]:
    results, times, spans = [], [], []
    for row in Plan(params).rows():
        if not (path := folder / f"{row.stage}.tsv").exists():
            continue
        with path.open(newline="", encoding="utf-8") as file:
            measured = list(csv.DictReader(file, delimiter="\t"))[-1]
        times.append(path.stat().st_mtime)
        job = _read_job(row.stage)
        spans.append((times[-1] - float(measured["s"]), times[-1]))
        measured["cpu_time"] = job.get("cpu_seconds", measured["cpu_time"])
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
    return {
        "date": datetime.fromtimestamp(max(times), UTC).date().isoformat(),
        "params": params.md5,
        "machine": describe_machine(compute_device().type, threads),
        "wall_seconds": round(_covered(spans), 1),
        "results": results,
    }


def _read_job(stage: str) -> dict[str, Any]:
    """Return the record of a stage's job; empty if there is none."""
    path = paths.JOBS_DIR / stage
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def _covered(spans: Iterable[tuple[float, float]]) -> float:
    """Return the time during which a stage ran: the length of the union of the spans."""
    covered, latest = 0.0, -math.inf
    for start, end in sorted(spans):
        covered += max(0.0, end - max(start, latest))
        latest = max(latest, end)
    return covered
