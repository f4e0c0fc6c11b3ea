"""The rules that Snakemake gets are the stages that DVC has."""

import re
from pathlib import Path

import networkx
import pytest
import yaml
from dvc.dependency.param import ParamsDependency
from dvc.repo import Repo

from mdpipe.params import RESOLVED_PARAMS_FILE, load_params
from mdpipe.pipeline.provenance import RESOLVE
from workflow.graph import Stage, inputs_of, is_folder, read_stages, with_dependents

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def repo() -> Repo:
    return Repo(str(ROOT))


@pytest.fixture(scope="module")
def stages(repo: Repo) -> list[Stage]:
    return read_stages(repo, load_params(ROOT / "params.yaml"))


def test_names_and_files_are_those_that_dvc_resolves(repo, stages):
    theirs = {stage.name: stage for stage in repo.index.stages if stage.name != RESOLVE}
    assert {stage.name for stage in stages} == set(theirs)
    for stage in stages:
        other = theirs[stage.name]
        assert set(stage.outputs) == {out.def_path for out in other.outs}
        assert set(stage.dependencies) == {dep.def_path for dep in other.deps if not isinstance(dep, ParamsDependency)}


def test_what_a_stage_waits_for_is_what_dvc_says_it_comes_after(repo, stages):
    by_output = {output: stage.name for stage in stages for output in stage.outputs}
    ours = {
        (stage.name, by_output[needed])
        for stage in stages
        for needed in inputs_of(stage, stages)
        if needed in by_output
    }
    theirs = {(late.name, early.name) for late, early in repo.index.graph.edges if early.name != RESOLVE}
    assert ours == theirs


@pytest.mark.parametrize("name", ["download@pydantic_docs", "train@chars_ar", "report"])
def test_dependents_of_a_stage_are_those_in_dvcs_graph(repo, stages, name):
    (changed,) = [stage for stage in repo.index.stages if stage.addressing == name]
    expected = {name, *(stage.addressing for stage in networkx.ancestors(repo.index.graph, changed))}
    assert with_dependents({name}, stages) == expected


def test_a_dependency_on_a_folder_means_all_that_is_made_in_it():
    report = Stage("report", "", ("metrics", "src"), (), 1, 0, 1, 1, "", ())
    first = Stage("a", "", (), ("metrics/a.json",), 1, 0, 1, 1, "", ())
    second = Stage("b", "", (), ("metrics/b/c.json", "metrics_of_another_name.json"), 1, 0, 1, 1, "", ())
    assert inputs_of(report, [report, first, second]) == ["metrics/a.json", "metrics/b/c.json", "src"]


def test_a_dependency_on_a_file_in_an_output_means_that_output():
    late = Stage("b", "", ("data/raw/a/texts.txt",), (), 1, 0, 1, 1, "", ())
    early = Stage("a", "", (), ("data/raw/a",), 1, 0, 1, 1, "", ())
    assert inputs_of(late, [early, late]) == ["data/raw/a"]


def test_stages_come_in_the_order_of_dvc_yaml_and_of_params(repo, stages):
    definition = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert list(dict.fromkeys(stage.name.partition("@")[0] for stage in stages)) == [
        name for name in definition if name != RESOLVE
    ]
    runs = yaml.safe_load((ROOT / "params.yaml").read_text())["runs"]
    assert [stage.name for stage in stages if stage.name.startswith("train@")] == [f"train@{run}" for run in runs]


def test_outputs_with_a_suffix_are_files_and_the_others_folders(stages):
    files = (".json", ".csv", ".md", ".npy", ".png")
    assert {output for stage in stages for output in stage.outputs if is_folder(output)} == {
        output for stage in stages for output in stage.outputs if not output.endswith(files)
    }


def test_dvc_yaml_stays_readable_at_one_sitting():
    assert len((ROOT / "dvc.yaml").read_text().splitlines()) < 200


def test_a_value_that_names_a_dependency_is_among_the_params():
    """`dvc repro` fills dependencies in when it starts. If the value is edited before the stage runs, dvc.lock must say
    what the stage has read.
    """
    definition = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    named = [(name, *use) for name, entry in definition.items() if "foreach" in entry for use in values_in_deps(entry)]
    assert ("train", "runs.${key}", "dataset") in named
    for name, section, value in named:
        (watched,) = definition[name]["do"]["params"]
        keys = set(watched[str(RESOLVED_PARAMS_FILE)])
        above = [section, *(f"{section}.{value.rsplit('.', level)[0]}" for level in range(value.count(".") + 1))]
        assert keys & {*above}, f"{name}: {section}.{value}"


def values_in_deps(entry) -> list[tuple[str, str]]:
    """Return the section of params.yaml and the key in it for each `${item.KEY}` in a stage's dependencies."""
    section = entry["foreach"].strip("${}") + ".${key}"
    return [
        (section, key) for dependency in entry["do"]["deps"] for key in re.findall(r"\$\{item\.([\w.]+)\}", dependency)
    ]


def test_every_stage_of_dvc_comes_after_resolve(repo):
    """`dvc repro` of any stage resolves params first."""
    after = {late.name for late, early in repo.index.graph.edges if early.name == RESOLVE}
    assert after == {stage.name for stage in repo.index.stages} - {RESOLVE}


def test_training_gets_the_threads_and_gpus_of_its_run(repo, stages):
    runs = load_params(ROOT / "params.yaml").runs
    training = {stage.name.removeprefix("train@"): stage for stage in stages if stage.name.startswith("train@")}
    assert {name: (stage.threads, stage.gpus) for name, stage in training.items()} == {
        name: (run.hardware.threads, run.hardware.num_processes) for name, run in runs.items()
    }
