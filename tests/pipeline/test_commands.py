"""What people type: experiments, diffs, tables, and mistakes."""

import json
import re
from pathlib import PurePosixPath
from zipfile import ZipFile

import pytest

pytestmark = pytest.mark.pipeline


MADE = ("data", "models", "samples", "metrics", "records", "results")


def test_an_experiment_changes_one_param_and_can_be_undone(built_copy):
    before = {folder: built_copy.digest(folder) for folder in MADE}
    lock = built_copy.lock()
    built_copy.commit()
    built_copy.run("dvc", "exp", "run", "-n", "lower", "-S", "runs.digits.train.learning_rate=0.001")
    assert [call for call in built_copy.stages_run() if call.startswith("train")] == ["train digits"]
    params = json.loads(built_copy.run("dvc", "params", "diff", "--json"))
    assert params["params.resolved.yaml"]["runs.digits.train.learning_rate"] == {
        "old": 0.003,
        "new": 0.001,
        "diff": -0.002,
    }
    metrics = json.loads(built_copy.run("dvc", "metrics", "diff", "--json"))
    assert "value" in metrics["metrics/evaluate/digits.json"]
    shown = json.loads(built_copy.run("dvc", "metrics", "show", "--json"))
    files = shown[""]["data"]
    assert set(files["metrics/evaluate/digits.json"]["data"]) == {"value", "stderr", "nfe"}
    built_copy.run("dvc", "plots", "show", "--out", "plots")
    assert "metrics_curves_digits_csv" in (built_copy.root / "plots/index.html").read_text()
    assert built_copy.is_up_to_date()
    # Earlier params give every artifact back without computing, through the other engine too.
    built_copy.run("git", "checkout", "params.yaml")
    built_copy.run("snakemake")
    assert built_copy.stages_run() in ([], ["report"])
    assert {folder: built_copy.digest(folder) for folder in MADE} == before
    assert built_copy.lock() == lock
    # The experiment can be taken again, and neither engine finds anything to do.
    built_copy.run("dvc", "exp", "apply", "lower")
    assert built_copy.is_up_to_date()
    assert built_copy.planned() == []


@pytest.mark.parametrize("engine", [("snakemake",), ("dvc", "repro")], ids=lambda engine: engine[0])
def test_params_that_cannot_run_are_refused_and_lose_nothing(built_copy, engine):
    before = {folder: built_copy.digest(folder) for folder in MADE}
    built_copy.edit_params("runs.chars_md4.network.num_heads", 3)
    built_copy.edit_params("runs.chars_md4.train.learning_rate", 0.5)
    assert "runs.chars_md4.network.num_heads: 3 is refused: does not divide hidden_size = 32" in built_copy.run(
        *engine, succeeds=False
    )
    assert built_copy.stages_run() == []
    built_copy.edit_params("runs.chars_md4.network.num_heads", 2)
    built_copy.edit_params("runs.chars_md4.train.learning_rate", 0.003)
    built_copy.run(*engine)
    assert {folder: built_copy.digest(folder) for folder in MADE} == before
    assert "train chars_md4" not in built_copy.stages_run()


def test_a_target_is_one_stage_and_a_failing_one_stops_no_other(built_copy):
    built_copy.edit_params("sources.typer_docs.packages", ["no_such_package"])
    for run in ("digits", "chars_md4"):
        built_copy.edit_params(f"runs.{run}.sample.sampler.steps", 5)
    built_copy.run("snakemake", "sample@digits")
    assert built_copy.stages_run() == ["sample digits"]
    said = built_copy.run("snakemake", succeeds=False)
    reason = "mdpipe: package 'no_such_package' is not installed"
    assert f"download@typer_docs failed: {reason}" in said.rpartition("Exiting because")[2]
    assert "sample chars_md4" in built_copy.stages_run()
    assert not built_copy.is_up_to_date()


def test_a_stage_that_cannot_run_is_refused_in_one_line(built_copy):
    (built_copy.root / "results/speed/samplers.csv").rename(built_copy.root / "elsewhere.csv")
    said = built_copy.run("snakemake", succeeds=False).splitlines()
    assert said[-1] == "error: report depends on results/speed/samplers.csv, which does not exist; put it back"
    said = built_copy.run("snakemake", "sample@digts", succeeds=False).splitlines()
    assert said[-1].startswith("error: no stage makes 'sample@digts' (did you mean 'sample@digits'?)")
    assert not [line for line in said if "Exception" in line]


def test_snakemake_report_has_tables_images_and_the_page(built_copy):
    built_copy.run("snakemake", "--report", "report.zip")
    with ZipFile(built_copy.root / "report.zip") as report:
        names = {PurePosixPath(name).name: name for name in report.namelist()}
        page = report.read(names["report.html"]).decode()
    assert {"likelihood.csv", "samples.png", "unmasking.gif", "chars_md4.csv", "index.html"} <= names.keys()
    assert re.search(r'"Likelihood": \{"evaluate": \[[^]]*"metrics/evaluate/chars_md4\.json"', page)
    made = "Sample from chars_md4: a result of <tt [^>]*>dvc repro sample&#64;chars_md4</tt>"
    assert re.search(f'"caption": "<p>{made}', page)
