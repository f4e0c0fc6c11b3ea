"""Targets are checked before Snakemake plans them."""

from pathlib import Path
from typing import Any

import pytest

from mdpipe.params import Params, parse_params
from tests.stages.plan_rows import smoke
from workflow.graph import Stage, needed_stages, require_dependencies, unknown_targets


def stage(name: str, dependencies: tuple[str, ...], *outputs: str) -> Stage:
    return Stage(name, "", dependencies, outputs, 1, 0, 1, 1, "", ())


STAGES = [
    stage("download@digits", ("my/digits",), "data/raw/digits"),
    stage("download@typer_docs", ("my/texts",), "data/raw/typer_docs"),
    stage("encode@digits", ("data/raw/digits",), "data/encoded/digits", "metrics/encode/digits.json"),
    stage("report", ("metrics", "speed.csv"), "report", "results/likelihood.csv"),
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def params(**changes: Any) -> Params:
    """The smoke preset whose sources are folders that are not there."""
    content = smoke()
    content["sources"]["digits"]["path"] = "my/digits"
    content["sources"]["typer_docs"]["path"] = "my/texts"
    return parse_params({**content, **changes})


@pytest.mark.parametrize(
    ("targets", "needed"),
    [
        ([], [0, 1, 2, 3]),
        (["all"], [0, 1, 2, 3]),
        (["encode@digits"], [0, 2]),
        (["./results/likelihood.csv"], [0, 2, 3]),
        (["data/raw/typer_docs/", "download@digits"], [0, 1]),
        (["unknown"], []),
    ],
)
def test_a_target_needs_all_that_it_depends_on(targets: list[str], needed: list[int]) -> None:
    assert needed_stages(targets, STAGES) == [STAGES[place] for place in needed]


def test_missing_dependencies_of_targets_are_named() -> None:
    with pytest.raises(ValueError, match=r"^sources\.digits\.path: 'my/digits' does not exist; correct it") as error:
        require_dependencies(params(), STAGES[:1], STAGES)
    assert "my/texts" not in str(error.value)
    Path("my/digits").mkdir(parents=True)
    require_dependencies(params(), [STAGES[0], STAGES[2]], STAGES)
    with pytest.raises(ValueError, match=r"^report depends on speed\.csv, which does not exist; put it back$"):
        require_dependencies(params(), STAGES[3:], STAGES)


def test_a_report_without_runs_asks_for_stages_by_name() -> None:
    none = {"runs": {}, "comparisons": [], "zero_shot": {}, "samplers": {}, "image_quality": {}}
    with pytest.raises(ValueError, match="no run to report on; ask for stages by name"):
        require_dependencies(params(**none), STAGES[3:], STAGES)


def test_unknown_targets_are_no_stages_outputs_or_files() -> None:
    Path("file.txt").touch()
    targets = ["all", "report", "encode@digts", "data/raw/digits", "file.txt", "data/raw/digts"]
    assert list(unknown_targets(targets, STAGES)) == ["encode@digts", "data/raw/digts"]
