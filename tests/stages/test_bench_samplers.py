"""Speeds of the comparison's samplers: a row for each, for the report to join; nothing is said of how fast."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from typer.testing import Result

from mdpipe.commands.plan import Plan
from mdpipe.commands.stage_costs import show_run
from mdpipe.params import Params
from mdpipe.pipeline import paths
from mdpipe.pipeline.model_io import load_model
from mdpipe.pipeline.provenance import LOCK_FILE
from mdpipe.reporting.schemas import SPEEDS
from mdpipe.reporting.tables import samplers_table
from mdpipe.stages.compare_samplers import compare_samplers
from tests.stages.conftest import SMOKE

pytestmark = pytest.mark.slow


def test_every_sampler_of_the_comparison_gets_its_speed(
    params: Params, place: Path, mdpipe: Callable[..., Result]
) -> None:
    (place / "params.yaml").write_text(SMOKE.read_text())
    result = mdpipe("bench", "samplers", "--repeats", 1)
    assert result.exit_code == 0, result.output
    assert result.output == paths.SPEEDS.read_text()
    speeds = pl.read_csv(paths.SPEEDS, schema_overrides=SPEEDS)
    assert speeds.columns == list(SPEEDS)
    compared = params.samplers.samplers_for(params.runs["chars_md4"].objective)
    assert speeds.select("sampler", "steps").rows() == [(c.kind, getattr(c, "steps", None)) for c in compared]
    assert set(speeds["num_parameters"]) == {load_model("chars_md4").num_parameters}
    assert speeds["tokens_per_second"].min() > 0

    compare_samplers(params, "chars_md4")
    table = samplers_table({"chars_md4": pl.read_csv(paths.plot("samplers", "chars_md4"))}, speeds)
    assert table.filter(pl.col("sampler") != "data")["tokens_per_second"].null_count() == 0


def test_the_machine_is_described_beside(place: Path, mdpipe: Callable[..., Result]) -> None:
    (place / "params.yaml").write_text(SMOKE.read_text())
    out = place / "elsewhere.csv"
    assert mdpipe("bench", "samplers", "--repeats", 1, "--out", out).exit_code == 0
    described = json.loads(out.with_suffix(".json").read_text())
    assert {"processor", "cores", "device", "torch", "commit"} <= set(described)
    assert (described["threads"], described["repeats"], described["samples"]) == (1, 1, 2)
    assert not paths.SPEEDS.exists()


def test_a_run_that_is_not_trained_is_named(place: Path, refusal: Callable[..., str]) -> None:
    (place / "params.yaml").write_text(SMOKE.read_text())
    (paths.model("chars_md4") / "run.json").unlink()
    assert "models/chars_md4/run.json does not exist; run `dvc repro train@chars_md4`" in refusal("bench", "samplers")


def put_job(stage: str, **record: Any) -> None:
    paths.JOBS_DIR.mkdir(parents=True, exist_ok=True)
    (paths.JOBS_DIR / stage).write_text(json.dumps(record))


def test_the_page_shows_a_run_of_which_all_outputs_are_made_here(params: Params, place: Path) -> None:
    """Two jobs at a time, 4 s each, the second of each pair 2 s after the first: 6 s of every 8 s are wall time."""
    Path("benchmarks").mkdir()
    paths.REPORT.mkdir()
    (paths.REPORT / "index.html").write_text(f'<dl data-id="{32 * "a"}">')
    stages = [row.stage for row in Plan(params).rows()]
    locked = {stage: {"outs": [{"path": stage, "md5": "0a"}]} for stage in stages}
    LOCK_FILE.write_text(yaml.safe_dump({"schema": "2.0", "stages": locked}))
    for number, stage in enumerate(stages):
        (tsv := Path(f"benchmarks/{stage}.tsv")).write_text("s\tmax_rss\tcpu_time\n240\t100\t3\n")
        end = 10**9 + 480 * (number // 2) + 120 * (number % 2)
        os.utime(tsv, (end, end))
        put_job(stage, cpu_seconds=1.0, commit="c0ffee", outputs={stage: "0a"})
    show_run(params)
    run = json.loads(paths.RUN_SCRIPT.read_text().removeprefix("window.mdpipeRun = ").rstrip(";\n"))
    assert run["id"] == 32 * "a"
    assert (run["facts"]["commit"], run["facts"]["date"]) == ("c0ffee", "2001-09-09")
    assert run["facts"]["wall time"] == f"{6 * (len(stages) // 2) + 4 * (len(stages) % 2)} minutes"
    put_job(stages[0], cpu_seconds=1.0, commit="c0ffee", outputs={stages[0]: "0b"})
    show_run(params)
    assert not paths.RUN_SCRIPT.exists()


def test_stage_costs_are_snakemakes_with_the_plans_tokens(
    params: Params, place: Path, mdpipe: Callable[..., Result]
) -> None:
    (place / "params.yaml").write_text(SMOKE.read_text())
    (place / "benchmarks").mkdir()
    for stage in ("train@chars_md4", "evaluate@removed"):
        header = "s\th:m:s\tmax_rss\tmean_load\tcpu_time"
        (place / f"benchmarks/{stage}.tsv").write_text(f"{header}\n8.5\t0:00:08\t436.38\t42.75\t7.25\n")
    result = mdpipe("bench", "stages")
    assert result.exit_code == 0, result.output
    recorded = json.loads(paths.COSTS.read_text())
    (cost,) = recorded["results"]
    run = params.runs["chars_md4"]
    assert cost.pop("tflop") > 0
    assert cost == {
        "stage": "train@chars_md4",
        "seconds": 8.5,
        "cpu_seconds": 7.25,
        "peak_mib": 436.38,
        "tokens": run.train.steps * run.train.batch_size * params.datasets[run.dataset].seq_len,
    }
    assert {"processor", "cores", "memory_gib", "device", "commit"} <= set(recorded["machine"])
    put_job("train@chars_md4", cpu_seconds=8.25)
    assert mdpipe("bench", "stages").exit_code == 0
    assert json.loads(paths.COSTS.read_text())["results"][0]["cpu_seconds"] == 8.25


def test_without_measurements_no_cost_is_written(place: Path, refusal: Callable[..., str]) -> None:
    (place / "params.yaml").write_text(SMOKE.read_text())
    assert "benchmarks has no measurement of a stage" in refusal("bench", "stages")
