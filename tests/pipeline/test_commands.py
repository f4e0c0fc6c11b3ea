"""What people type: experiments, diffs, tables, and mistakes."""

import json
from pathlib import PurePosixPath
from zipfile import ZipFile

import pytest

pytestmark = pytest.mark.pipeline


MADE = ("data", "models", "samples", "metrics", "records", "results")


def test_an_experiment_changes_one_param_and_can_be_undone(made):
    before = {folder: made.digest(folder) for folder in MADE}
    lock = made.lock()
    made.commit()
    made.run("dvc", "exp", "run", "-n", "lower", "-S", "runs.digits.train.learning_rate=0.001")
    assert [call for call in made.stages_run() if call.startswith("train")] == ["train digits"]
    params = json.loads(made.run("dvc", "params", "diff", "--json"))
    assert params["params.resolved.yaml"]["runs.digits.train.learning_rate"] == {
        "old": 0.003,
        "new": 0.001,
        "diff": -0.002,
    }
    metrics = json.loads(made.run("dvc", "metrics", "diff", "--json"))
    assert "value" in metrics["metrics/evaluate/digits.json"]
    shown = json.loads(made.run("dvc", "metrics", "show", "--json"))
    files = shown[""]["data"]
    assert set(files["metrics/evaluate/digits.json"]["data"]) == {"value", "stderr", "nfe"}
    made.run("dvc", "plots", "show", "--out", "plots")
    assert "metrics_curves_digits_csv" in (made.root / "plots/index.html").read_text()
    assert made.is_up_to_date()
    # Earlier params give every artifact back without computing, through the other engine too.
    made.run("git", "checkout", "params.yaml")
    made.run("snakemake")
    assert made.stages_run() in ([], ["report"])
    assert {folder: made.digest(folder) for folder in MADE} == before
    assert made.lock() == lock
    # The experiment can be taken again, and neither engine finds anything to do.
    made.run("dvc", "exp", "apply", "lower")
    assert made.is_up_to_date()
    assert made.planned() == []


@pytest.mark.parametrize("engine", [("snakemake",), ("dvc", "repro")], ids=lambda engine: engine[0])
def test_params_that_cannot_run_are_refused_and_lose_nothing(made, engine):
    before = {folder: made.digest(folder) for folder in MADE}
    made.edit_params("runs.chars_md4.network.num_heads", 3)
    made.edit_params("runs.chars_md4.train.learning_rate", 0.5)
    assert "runs.chars_md4.network.num_heads: 3 is refused: does not divide hidden_size = 32" in made.run(
        *engine, succeeds=False
    )
    assert made.stages_run() == []
    made.edit_params("runs.chars_md4.network.num_heads", 2)
    made.edit_params("runs.chars_md4.train.learning_rate", 0.003)
    made.run(*engine)
    assert {folder: made.digest(folder) for folder in MADE} == before
    assert "train chars_md4" not in made.stages_run()


def test_a_target_is_one_stage_and_a_failing_one_stops_no_other(made):
    made.edit_params("sources.typer_docs.packages", ["no_such_package"])
    for run in ("digits", "chars_md4"):
        made.edit_params(f"runs.{run}.sample.sampler.steps", 5)
    made.run("snakemake", "sample@digits")
    assert made.stages_run() == ["sample digits"]
    assert "package 'no_such_package' is not installed" in made.run("snakemake", succeeds=False)
    assert "sample chars_md4" in made.stages_run()
    assert not made.is_up_to_date()


def test_a_stage_that_cannot_run_is_refused_in_one_line(made):
    (made.root / "results/speed/samplers.csv").rename(made.root / "elsewhere.csv")
    said = made.run("snakemake", succeeds=False).splitlines()
    assert said[-1] == "error: report depends on results/speed/samplers.csv, which does not exist; put it back"
    said = made.run("snakemake", "sample@digts", succeeds=False).splitlines()
    assert said[-1].startswith("error: no stage makes 'sample@digts' (did you mean 'sample@digits'?)")
    assert not [line for line in said if "Exception" in line]


def test_snakemake_report_has_tables_images_and_the_page(made):
    made.run("snakemake", "--report", "report.zip")
    with ZipFile(made.root / "report.zip") as report:
        names = {PurePosixPath(name).name for name in report.namelist()}
    assert {"likelihood.csv", "samples.png", "unmasking.gif", "chars_md4.csv", "index.html"} <= names
