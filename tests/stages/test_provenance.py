"""A stage whose inputs are written while it runs fails; its inputs are what dvc.yaml lists."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from dvc.dependency.param import ParamsDependency
from dvc.repo import Repo

from mdpipe.params import RESOLVED_PARAMS_FILE, Params, load_params, read_params
from mdpipe.pipeline import provenance
from mdpipe.pipeline.provenance import (
    StaleInputsError,
    output_patterns,
    require_unchanged_inputs,
    stage_inputs,
    stage_outputs,
    watch_inputs,
)

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
RESOLVED = str(RESOLVED_PARAMS_FILE)


def names_of(stage: str, params: Params) -> list[str]:
    """Split the address of a stage into the arguments of its command."""
    command, _, key = stage.partition("@")
    if command != "zero_shot":
        return [key] if key else []
    (names,) = [[run, source] for run in params.runs for source in params.sources if f"{run}-{source}" == key]
    return names


@pytest.mark.slow
def test_inputs_are_params_and_dependencies_as_dvc_resolves(monkeypatch):
    monkeypatch.chdir(ROOT)
    loaded, content = load_params(), read_params(RESOLVED_PARAMS_FILE)
    for stage in Repo(str(ROOT)).index.stages:
        ours = stage_inputs(stage.addressing.partition("@")[0], names_of(stage.addressing, loaded), content)
        params = [dependency for dependency in stage.deps if isinstance(dependency, ParamsDependency)]
        read = {f"{each.def_path}: {key}": value for each in params for key, value in each.read_params().items()}
        files = {file for file in ours if ": " not in file}
        assert {key: value for key, value in ours.items() if key not in files} == read
        paths = {dependency.def_path for dependency in stage.deps if not isinstance(dependency, ParamsDependency)}
        assert {path for path in files if not any(f"{path}/".startswith(f"{place}/") for place in paths)} == set()
        assert {path for path in paths if not any(f"{file}/".startswith(f"{path}/") for file in files)} == set()


def test_outputs_are_those_that_dvc_resolves(monkeypatch):
    monkeypatch.chdir(ROOT)
    loaded, content = load_params(), read_params(RESOLVED_PARAMS_FILE)
    for stage in Repo(str(ROOT)).index.stages:
        ours = stage_outputs(stage.addressing.partition("@")[0], names_of(stage.addressing, loaded), content)
        assert sorted(map(str, ours)) == sorted(out.def_path for out in stage.outs)
        made_by_name = [out for out in ours if "@" in stage.addressing]
        assert all(any(out.match(str(pattern)) for pattern in output_patterns()) for out in made_by_name)


def test_inputs_are_recorded_before_a_stages_code_is_loaded():
    program = (
        "import mdpipe.cli, sys; print(*(module.__file__ for name, module in sys.modules.items() if 'mdpipe' in name))"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    # The stage `resolve` has the code of params, with which any command begins.
    listed = [stage.get("do", stage)["deps"] for name, stage in stages.items() if name != "resolve"]
    code = {ROOT / name for names in listed for name in names if name.startswith("src/")}
    assert [file for file in loaded if any(Path(file).is_relative_to(place) for place in code)] == []


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A stage that reads two params, a file and two folders."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_STAGE", "train@a")
    monkeypatch.setattr(provenance, "_watched", [])
    dependencies = ["code", "data/${item.dataset}", "constraints.txt"]
    stage = {"foreach": "${runs}", "do": {"deps": dependencies, "params": [{RESOLVED: ["seed", "runs.${key}.train"]}]}}
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": {"train": stage}}))
    Path(RESOLVED).write_text(yaml.safe_dump(PARAMS))
    shutil.copy(ROOT / ".dvcignore", ".dvcignore")
    for name in ("code/network.py", "data/d/tokens.npy", "data/other/tokens.npy", "constraints.txt"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("first\n")
    return tmp_path


PARAMS = {"seed": 0, "runs": {"a": {"dataset": "d", "train": {"steps": 1}}, "b": {"train": {"steps": 1}}}}


def edit_params(**runs):
    Path(RESOLVED).write_text(yaml.safe_dump({**PARAMS, "runs": {**PARAMS["runs"], **runs}}))


def restore(name):
    Path(name).write_text("second\n")
    Path(name).write_text("first\n")


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (lambda: edit_params(a={"dataset": "d", "train": {"steps": 2}}), f"{RESOLVED}: runs.a.train"),
        (lambda: Path(RESOLVED).write_text("seed: ["), RESOLVED),
        (lambda: Path(RESOLVED).unlink(), RESOLVED),
        (lambda: Path("code/network.py").write_text("second\n"), "code/network.py"),
        (lambda: restore("code/network.py"), "code/network.py"),
        (lambda: Path("code/new.py").touch(), "code/new.py"),
        (lambda: Path("code/network.py").unlink(), "code/network.py"),
        (lambda: Path("data/d/tokens.npy").write_text("second\n"), "data/d/tokens.npy"),
        (lambda: shutil.rmtree("data/d"), "data/d"),
        (lambda: Path("constraints.txt").write_text("second\n"), "constraints.txt"),
    ],
    ids=["param", "broken", "missing", "code", "restored", "added", "removed", "data", "folder", "file"],
)
def test_a_changed_input_is_named(place, edit, named):
    watch_inputs("train", ["a"], read_params(RESOLVED_PARAMS_FILE))
    edit()
    with pytest.raises(StaleInputsError, match=rf"train@a is stale: .*{named}"):
        require_unchanged_inputs()


def test_a_leftover_rank_of_a_launcher_does_not_skip_the_checks(place, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    watch_inputs("train", ["a"], read_params(RESOLVED_PARAMS_FILE))
    Path("code/network.py").write_text("second\n")
    with pytest.raises(StaleInputsError):
        require_unchanged_inputs()


@pytest.mark.parametrize(
    "edit",
    [
        lambda: None,
        lambda: edit_params(b={"train": {"steps": 2}}),
        lambda: Path(RESOLVED).write_text("# A comment.\n" + Path(RESOLVED).read_text()),
        lambda: Path("data/other/tokens.npy").write_text("second\n"),
        lambda: Path("code/.network.py.swp").touch(),
        lambda: Path("code/__pycache__").mkdir(),
    ],
    ids=["nothing", "other_run", "comment", "other_data", "swap_file", "bytecode"],
)
def test_what_the_stage_does_not_read_may_change(place, edit):
    watch_inputs("train", ["a"], read_params(RESOLVED_PARAMS_FILE))
    edit()
    require_unchanged_inputs()


@pytest.mark.parametrize(
    "variables", [{"DVC_STAGE": ""}, {"DVC_STAGE": "other@a"}, {"RANK": "1", "TORCHELASTIC_RUN_ID": "mdpipe"}]
)
def test_only_the_process_that_dvc_waits_for_compares(place, monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    watch_inputs("train", ["a"], read_params(RESOLVED_PARAMS_FILE))
    Path("code/network.py").write_text("second\n")
    require_unchanged_inputs()


def test_a_stage_of_dvc_runs_the_code_of_its_repository(tmp_path):
    """Although an editable install, here PYTHONPATH, leads to another."""
    package = tmp_path / "repository/src/mdpipe"
    package.mkdir(parents=True)
    for name in ("__init__.py", "__main__.py"):
        shutil.copy(ROOT / "src/mdpipe" / name, package / name)
    (package / "cli.py").write_text("import sys\n\n\ndef app():\n    print(__file__, *sys.argv[1:])\n")
    command = [sys.executable, "-m", "mdpipe", "train", "a"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "DVC_STAGE": "train@a"}
    printed = subprocess.run(command, cwd=package.parents[1], env=environment, capture_output=True, text=True).stdout
    assert printed.split() == [str(package / "cli.py"), "train", "a"]
