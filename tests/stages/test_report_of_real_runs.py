"""The report of runs that the pipeline's own stages trained."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mdpipe.data.artifacts.files import read_record
from mdpipe.params import RESOLVED_PARAMS_FILE, Params, parse_params
from mdpipe.pipeline import paths
from mdpipe.reporting.schemas import SPEEDS
from mdpipe.stages.compare_samplers import compare_samplers
from mdpipe.stages.report import report
from mdpipe.stages.sample import sample
from tests.stages.test_report import difference_by_hand, put, row_of


def test_measured_speeds_are_in_the_table_of_samplers(params: Params, place: Path) -> None:
    """Speeds of the measured rows, read with their types also if no sampler has a time grid."""
    data = params.model_dump(mode="json")
    del data["zero_shot"], data["image_quality"]
    data["samplers"]["samplers"] = [{"kind": "first_hitting"}]
    real = parse_params(data)
    put(RESOLVED_PARAMS_FILE, "")
    for run in real.runs:
        sample(real, run)
    compare_samplers(real, "chars_md4")
    parameters = pl.read_csv(paths.plot("samplers", "chars_md4"))["num_parameters"][0]
    put(paths.SPEEDS, f"{','.join(SPEEDS)}\nchars_md4,first_hitting,,{parameters},64.5\n")
    report(real)
    table = pl.read_csv(paths.RESULTS / "samplers.csv")
    assert table.select("sampler", "tokens_per_second").rows() == [("data", None), ("first_hitting", 64.5)]


def test_the_report_of_real_runs_holds_each_of_them(params: Params, place: Path) -> None:
    """Their difference is that of their bounds, up to the six digits of the metrics."""
    data = params.model_dump(mode="json")
    del data["zero_shot"], data["image_quality"]
    real = parse_params(data)
    put(RESOLVED_PARAMS_FILE, "")
    for run in real.runs:
        sample(real, run)
    compare_samplers(real, "chars_md4")
    report(real)
    tables = {name: pl.read_csv(paths.RESULTS / f"{name}.csv") for name in ("likelihood", "samples", "samplers")}
    assert set(tables["likelihood"]["run"].drop_nulls()) == set(tables["samples"]["run"]) == set(real.runs)
    assert tables["samplers"].height == 6
    assert tables["samplers"]["tokens_per_second"].null_count() == 6
    first, second = (np.load(paths.evaluation(run)) for run in ("chars_md4", "chars_ar"))
    expected = difference_by_hand(first[:, 0], second[:, 0], first[:, 1], first[:, 2])
    found = row_of("chars_md4")
    assert (found["difference"], found["difference_stderr_evaluation"]) == pytest.approx(expected, rel=5e-6)
    values = [read_record(paths.metrics("evaluate", run))["value"] for run in ("chars_md4", "chars_ar")]
    assert found["difference"] == pytest.approx(values[0] - values[1], abs=2e-5)
    page = (paths.REPORT / "index.html").read_text(encoding="utf-8")
    assert all(run in page for run in real.runs)
    filled = json.loads((paths.samples("chars_md4") / paths.INFILLED_TEXTS).read_text())["texts"]
    assert all(f"<mark>{text['filled']}</mark>" in page for text in filled)
    assert page.count("what digits fills in") == 2  # The text that replaces the image, and the caption.
    conditions = dict(tables["likelihood"].select("run", "class_cond").drop_nulls("run").iter_rows())
    assert conditions == {name: run.class_cond and "class label" for name, run in real.runs.items()}
    guided = tables["samples"].filter(run="digits").select("class_cond", "guidance_scale", "unit")
    assert guided.rows() == [("class label", 1.0, "bits/dim")]
    assert "| class label |" in (paths.RESULTS / "likelihood.md").read_text()
    heading = (paths.RESULTS / "datasets.md").read_text().splitlines()[0]
    assert all(f" {name} |" in heading for name in ("seq len", "examples", "tokens", "contamination windows"))


def test_the_final_loss_is_the_mean_of_the_curves_end(params: Params, place: Path) -> None:
    for run in params.runs:
        trained = read_record(paths.record("train", run), paths.metrics("train", run))
        losses = pl.read_csv(paths.plot("curves", run))["train/loss"]
        assert trained["final_loss_rows"] == min(20, len(losses)) > 1
        assert trained["final_loss"] == pytest.approx(losses.tail(20).mean(), rel=1e-5)
        assert trained["final_loss"] != pytest.approx(losses[-1], rel=1e-5)
