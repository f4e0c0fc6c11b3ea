"""A run with seeds through both engines: each further seed is trained and nothing else is."""

import polars as pl
import pytest

RUN = "digits"
OF_RUN = ("train", "sample", "evaluate", "measure-images")

pytestmark = pytest.mark.pipeline


def test_only_new_seeds_are_trained_by_either_engine(built_copy):
    built_copy.edit_params(f"runs.{RUN}.seeds", [0, 1])
    assert "`seeds` asks for other runs" in built_copy.run("dvc", "repro", succeeds=False)
    assert built_copy.stages_run() == []
    built_copy.run("dvc", "repro")
    assert sorted(built_copy.stages_run()) == sorted([*(f"{stage} {RUN}-seed1" for stage in OF_RUN), "report"])
    assert built_copy.is_up_to_date()
    assert built_copy.planned() == []
    models = [built_copy.digest(f"models/{name}") for name in (RUN, f"{RUN}-seed1")]
    assert len(set(models)) == 2

    built_copy.edit_params(f"runs.{RUN}.seeds", [0, 1, 2])
    kept = (built_copy.root / "params.replicates.yaml").read_text()
    assert f"train@{RUN}-seed2" in built_copy.planned()
    assert (built_copy.root / "params.replicates.yaml").read_text() == kept
    built_copy.run("snakemake", "--cores", "all")
    assert sorted(built_copy.stages_run()) == sorted([*(f"{stage} {RUN}-seed2" for stage in OF_RUN), "report"])
    assert built_copy.is_up_to_date()
    assert [built_copy.digest(f"models/{name}") for name in (RUN, f"{RUN}-seed1")] == models

    table = pl.read_csv(built_copy.root / "results/likelihood.csv")
    mean, *trainings = table.filter(pl.col("run").str.starts_with(RUN)).rows(named=True)
    assert [(row["run"], row["seed"]) for row in trainings] == [(RUN, 0), (f"{RUN}-seed1", 1), (f"{RUN}-seed2", 2)]
    values = pl.Series([row["value"] for row in trainings])
    assert (mean["run"], mean["seed"], mean["seeds"]) == (RUN, None, 3)
    assert mean["value"] == pytest.approx(values.mean(), rel=1e-5)
    assert mean["seeds_stderr"] == pytest.approx(values.std() / 3**0.5, rel=1e-4)
    shown = [
        line for line in (built_copy.root / "results/likelihood.md").read_text().splitlines() if f" {RUN} " in line
    ]
    assert len([line for line in shown if line.startswith(f"| {RUN} ")]) == 1

    built_copy.edit_params(f"runs.{RUN}.seeds", None)
    assert f"models/{RUN}-seed2" in built_copy.run("mdpipe", "clean")
    built_copy.run("snakemake", "--cores", "all")
    assert built_copy.stages_run() == ["clean", "report"]
    assert built_copy.is_up_to_date()
