"""What DVC shows of the default suite fits a screen: metrics, differences, experiments and plots."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from mdpipe.data.artifacts.files import RESULTS, write_record
from mdpipe.evaluation.profile import CalibrationRow, MaskFractionRow, PositionRow
from mdpipe.pipeline import paths

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TERMINAL_WIDTH = 160
MAX_COLUMNS = 60
RESULTS_OF = {
    "train": ("final_loss",),
    "sample": ("entropy", "nfe"),
    "evaluate": ("value", "stderr", "bits_per_byte", "perplexity", "nfe"),
    "zero_shot": ("value", "stderr", "bits_per_byte", "perplexity", "nfe"),
    "features": ("accuracy",),
    "image_quality": ("fid", "accuracy"),
}
"""The most results that the metrics files of a folder have: bounds of text, and samples of requested classes."""
PROFILES = {
    "mask_fraction": MaskFractionRow._fields,
    "position": PositionRow._fields,
    "calibration": CalibrationRow._fields,
}


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a repository with the graph of the default suite and metrics as its stages write them."""
    folder = tmp_path_factory.mktemp("views")
    for name in ("dvc.yaml", "params.yaml", "params.resolved.yaml", "params.replicates.yaml"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "workflow", folder / "workflow", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / ".dvc").mkdir()
    for name in ("config", ".gitignore"):
        shutil.copy(ROOT / ".dvc" / name, folder / ".dvc")
    params = yaml.safe_load((ROOT / "params.resolved.yaml").read_text())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for stage in RESULTS_OF:
            for name in names(stage, params):
                write_results(stage, name)
        for run in params["runs"]:
            paths.plot("curves", run).parent.mkdir(parents=True, exist_ok=True)
            paths.plot("curves", run).write_text(
                "step,train/loss,train/lr,train/grad_norm\n10,4.5,0.1,1\n20,4.25,0.1,1\n"
            )
            for part, columns in PROFILES.items():
                paths.plot(part, run).parent.mkdir(parents=True, exist_ok=True)
                paths.plot(part, run).write_text(f"{','.join(columns)}\n{','.join('1' * len(columns))}\n")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "Add metrics"]):
        subprocess.run([*git, *command], cwd=folder, check=True)
    return folder


def names(stage: str, params: dict[str, Any]) -> list[str]:
    """Return the names of a stage's metrics files."""
    if stage == "zero_shot":
        return [f"{run}-{source}" for run in params["zero_shot"]["runs"] for source in params["zero_shot"]["sources"]]
    images = params["image_quality"]
    return list({"features": images["features"], "image_quality": images["runs"]}.get(stage, params["runs"]))


def write_results(stage: str, name: str, factor: float = 1.0) -> None:
    results = {key: factor * (100 + len(key)) / 7 for key in RESULTS_OF[stage]}  # 15.2857 and the like
    write_record({"run": name, **results}, paths.record(stage, name), paths.metrics(stage, name))


def show(repo: Path, *command: str) -> str:
    environment = os.environ | {"COLUMNS": "4000", "PYTHONPATH": str(repo)}
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=repo, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.fixture(scope="module")
def changed(repo: Path) -> Path:
    """Return the repository after another run of `chars_md4`, with another learning rate."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(repo)
        for stage in ("train", "sample", "evaluate"):
            write_results(stage, "chars_md4", factor=1.1)
        for name in ("params.yaml", "params.resolved.yaml"):
            params = yaml.safe_load(Path(name).read_text())
            params["runs"]["chars_md4"]["train"]["learning_rate"] = 0.5
            Path(name).write_text(yaml.safe_dump(params))
    return repo


def test_metrics_of_the_default_suite_fit_a_terminal(repo: Path) -> None:
    heading, *rows = show(repo, "dvc", "metrics", "show").splitlines()
    assert heading.split() == ["Path", *sorted(RESULTS)]
    assert len(rows) == 41
    assert max(map(len, [heading, *rows])) <= TERMINAL_WIDTH


def test_every_metrics_file_of_the_graph_holds_results_only() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].values()
    templates = [path for stage in stages for metric in stage.get("do", stage).get("metrics", []) for path in metric]
    assert {Path(template).parent.name for template in templates} == set(RESULTS_OF)
    for file in (ROOT / "metrics").glob("*/*.json"):
        assert set(json.loads(file.read_bytes())) <= set(RESULTS_OF[file.parent.name]), file
    assert {name for results in RESULTS_OF.values() for name in results} == set(RESULTS)


def test_a_difference_lists_the_changed_run_only(changed: Path) -> None:
    differences = json.loads(show(changed, "dvc", "metrics", "diff", "--json"))
    assert {name: set(of_file) for name, of_file in differences.items()} == {
        str(paths.metrics(stage, "chars_md4")): set(RESULTS_OF[stage]) for stage in ("train", "sample", "evaluate")
    }


def test_documented_views_of_experiments_have_few_columns(changed: Path) -> None:
    recipes = re.findall(r"^(dvc exp show .+?)(?: +#.*)?$", (ROOT / "docs/sweeps.md").read_text(), flags=re.MULTILINE)
    assert len(set(recipes)) >= 2
    for recipe in set(recipes):
        arguments = [argument.strip("'") for argument in recipe.split()]
        columns = show(changed, *arguments, "--csv").splitlines()[0].split(",")
        assert len(columns) <= MAX_COLUMNS
        assert any(column.startswith("metrics/evaluate/chars_md4.json:") for column in columns)


def test_a_plain_view_of_experiments_has_a_column_per_result(repo: Path) -> None:
    columns = show(repo, "dvc", "exp", "show", "--csv").splitlines()[0].split(",")
    metrics = [column.rpartition(":")[2] for column in columns if column.startswith("metrics/")]
    assert set(metrics) == set(RESULTS)
    assert len(metrics) == 10 * (1 + 2 + 5) + 6 * 5 + 1 + 4 * 2


def test_plots_need_no_network(repo: Path) -> None:
    assert show(repo, "workflow.plots_template") == ".dvc/plots.html\n"
    rows = "".join(f"{run},{step},a,4.5\n" for run in ("chars_md4", "chars_ar") for step in (10, 20))
    (repo / "results").mkdir()
    (repo / "results/curves.csv").write_text(f"run,step,panel,loss\n{rows}")
    show(repo, "dvc", "plots", "show")
    page = (repo / "dvc_plots/index.html").read_text()
    assert page.count("vegaEmbed('#") == 13 + 10 * len(PROFILES)
    for title in ("Bits of a token of digits by position", "Calibration of chars_ar"):
        assert title in page
    assert page.count('"title": "Training loss and validation bound"') == 1
    assert "Training loss of chars_md4" in page
    assert not re.search(r"""<(script|link)\b[^>]*\b(src|href)\s*=""", page.replace("\\/", "/").split("<body>")[1])
    assert not re.search(r"<script[^>]*\bsrc\b", page.split("<body>")[0].split("<script>")[0])


def test_every_run_of_the_default_suite_is_an_artifact() -> None:
    definition, params = (yaml.safe_load((ROOT / name).read_text()) for name in ("dvc.yaml", "params.yaml"))
    models = {entry["path"]: entry["desc"] for entry in definition["artifacts"].values()}
    assert models == {str(paths.model(run)): f"Trained on {of['dataset']}" for run, of in params["runs"].items()}
