"""Snakemake runs no stage that DVC finds up to date, and removes no output."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from workflow.leave_to_dvc import DAG, Job, ignore_clock_skew, keep_outputs, require_no_benchmark

SNAKEFILE = """\
from workflow.leave_to_dvc import require_no_benchmark

rule train:
    output: "model"
    benchmark: "train.tsv"
    shell: "touch model"

if config["is_up_to_date"]:
    require_no_benchmark(workflow.get_rule("train"))
"""


def test_snakemake_accepts_outputs_older_than_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DAG, "check_output_mtime", DAG.check_output_mtime)  # Put back afterwards.
    ignore_clock_skew()
    asyncio.run(DAG.check_output_mtime(None, None, None))


def test_snakemake_keeps_outputs_of_a_stage_that_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Job, "remove_existing_output", Job.remove_existing_output)  # Put back afterwards.
    removed: list[str] = []

    async def remove(**_: object) -> None:
        removed.append("metrics.json")

    job = SimpleNamespace(
        output=[SimpleNamespace(remove=remove, flags={})], rule=SimpleNamespace(output=[None]), log=[]
    )
    asyncio.run(Job.remove_existing_output(job))
    assert removed.pop() == "metrics.json"
    keep_outputs()
    asyncio.run(Job.remove_existing_output(job))
    assert not removed


@pytest.mark.parametrize("is_up_to_date", [True, False])
def test_a_missing_benchmark_runs_no_stage_that_is_up_to_date(tmp_path: Path, is_up_to_date: bool) -> None:
    """As after `dvc pull` in another clone, where git has no benchmarks."""
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    (tmp_path / "model").touch()
    command = (sys.executable, "-m", "snakemake", "-n", "train", "--config", f"is_up_to_date={is_up_to_date}")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert ("Nothing to be done" in done.stdout + done.stderr) is is_up_to_date


def test_an_existing_benchmark_is_kept_in_the_rule(tmp_path: Path) -> None:
    path = tmp_path / "train.tsv"
    rule = SimpleNamespace(benchmark=str(path), _benchmark=str(path))
    path.touch()
    require_no_benchmark(rule)
    assert rule._benchmark == str(path)
    path.unlink()
    require_no_benchmark(rule)
    assert rule._benchmark is None
