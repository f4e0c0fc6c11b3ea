"""Speeds of the comparison's samplers: a row for each, for the report to join; nothing is said of how fast."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from typer.testing import Result

from mdpipe.commands.plan import Plan
from mdpipe.params import Params
from mdpipe.pipeline import paths
from mdpipe.pipeline.model_io import load_model
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
    assert recorded["wall_seconds"] == 8.5
    paths.CPU_SECONDS_DIR.mkdir(parents=True)
    (paths.CPU_SECONDS_DIR / "train@chars_md4").write_text("8.25\n")
    assert mdpipe("bench", "stages").exit_code == 0
    assert json.loads(paths.COSTS.read_text())["results"][0]["cpu_seconds"] == 8.25


def test_the_wall_time_is_that_in_which_a_stage_ran(params: Params, place: Path, mdpipe: Callable[..., Result]) -> None:
    """Pairs of stages of 240 s each, the second 120 s after the first, then 120 s without any: 360 s of every 480 s."""
    (place / "params.yaml").write_text(SMOKE.read_text())
    (place / "benchmarks").mkdir()
    stages = [row.stage for row in Plan(params).rows()][:6]
    for number, stage in enumerate(stages):
        (path := place / f"benchmarks/{stage}.tsv").write_text("s\tmax_rss\tcpu_time\n240\t100\t3\n")
        end = 10**9 + 480 * (number // 2) + 120 * (number % 2)
        os.utime(path, (end, end))
    assert mdpipe("bench", "stages").exit_code == 0
    recorded = json.loads(paths.COSTS.read_text())
    assert (recorded["wall_seconds"], recorded["date"]) == (1080, "2001-09-09")


def test_without_measurements_no_cost_is_written(place: Path, refusal: Callable[..., str]) -> None:
    (place / "params.yaml").write_text(SMOKE.read_text())
    assert "benchmarks has no measurement of a stage" in refusal("bench", "stages")
