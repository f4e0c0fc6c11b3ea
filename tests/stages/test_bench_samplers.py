"""Speeds of the comparison's samplers: a row for each, for the report to join; nothing is said of how fast."""

import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from typer.testing import Result

from mdpipe.params import Params
from mdpipe.pipeline import paths
from mdpipe.reporting.tables import SPEEDS, samplers_table
from mdpipe.stages.compare_samplers import compare_samplers
from mdpipe.stages.model_io import load_model
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
    table = samplers_table({"chars_md4": pl.read_csv(paths.samplers("chars_md4"))}, speeds)
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
