"""What is refused before anything runs: sources without files or made from themselves, working copies unfit for DVC."""

import os
import shutil
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from mdpipe.cli import app
from mdpipe.commands.check import describe
from mdpipe.params import dump_params, load_params, parse_params
from mdpipe.pipeline.preflight import require_usable
from mdpipe.stages.resolve import resolve
from tests.stages.plan_rows import FILES, smoke
from workflow.engine import open_repo

ROOT = Path(__file__).parents[2]


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("constraints.txt").touch()
    Path("params.yaml").write_bytes(FILES["smoke"].read_bytes())
    Path("params.resolved.yaml").write_text(dump_params(load_params()))
    return tmp_path


def with_paths(**paths: str) -> Any:
    """The smoke preset with other paths of its sources."""
    content = deepcopy(smoke())
    for source, path in paths.items():
        content["sources"][source]["path"] = path
    return parse_params(content)


def check() -> Any:
    return CliRunner().invoke(app, ["check"])


def refusal(params: Any) -> str:
    with pytest.raises(ValueError) as error:
        require_usable(params, with_sources=True)
    return str(error.value)


def test_the_smoke_preset_is_usable_where_its_files_are(place):
    require_usable(parse_params(smoke()), with_sources=True)
    assert check().exit_code == 0


def test_check_names_every_path_that_is_missing(place):
    Path("constraints.txt").unlink()
    result = check()
    assert result.exit_code == 1
    assert "train@chars_md4" not in result.output  # A list of stages would hide the problem.
    for source in smoke()["sources"]:
        assert f"sources.{source}.path: 'constraints.txt' does not exist" in result.output


def test_check_names_missing_weights_of_a_feature_network(place):
    content = smoke()
    content["image_quality"] = {"features": {"digits": {"kind": "inception", "dataset": "digits", "path": "no.pth"}}}
    params = parse_params(content)
    assert refusal(params) == (
        "image_quality.features.digits.path: 'no.pth' does not exist; correct it, or put the file there"
    )
    require_usable(params, with_sources=False)
    Path("no.pth").touch()
    require_usable(params, with_sources=True)


def test_resolve_warns_of_missing_files_of_sources_to_download(place, caplog):
    """DVC's own error has no key of params.yaml."""
    params = with_paths(digits="gone.txt")
    resolve(params)
    assert caplog.messages == ["sources.digits.path: 'gone.txt' does not exist; correct it, or put the files there"]
    caplog.clear()
    Path("data/raw/digits").mkdir(parents=True)
    resolve(params)
    assert caplog.messages == []


def test_check_says_that_without_runs_there_is_no_report(place):
    content = smoke()
    content["runs"] = {}
    del content["comparisons"], content["zero_shot"], content["samplers"], content["image_quality"]
    assert describe(parse_params(content)).splitlines()[-1].startswith("  no report, which needs a run")
    assert describe(parse_params(smoke())).endswith("  report")


def test_who_has_the_artifacts_needs_no_files_of_sources(place):
    Path("constraints.txt").unlink()
    require_usable(parse_params(smoke()), with_sources=False)


@pytest.mark.parametrize("path", ["data/raw/pydantic_docs", "data/tokenizers/docs_subwords/x", "./models//chars_md4/"])
def test_a_path_that_an_earlier_stage_makes_need_not_exist(place, path):
    require_usable(with_paths(typer_docs=path), with_sources=True)


@pytest.mark.parametrize(
    ("paths", "part"),
    [
        ({"digits": "data/raw/digits"}, "sources.digits.path: 'data/raw/digits' is made from the source itself"),
        ({"digits": "models/digits/x"}, "sources.digits.path: 'models/digits/x' is made from the source itself"),
        (
            {"digits": "data/raw/typer_docs", "typer_docs": "models/digits"},
            "sources.typer_docs.path: 'models/digits' is made from the source itself",
        ),
        ({"digits": "."}, "sources.digits.path: '.' contains data/raw/"),
        ({"digits": "data"}, "contains data/raw/"),
        ({"digits": "/"}, "contains data/raw/"),
        ({"digits": "records"}, "contains records/encode/"),
        ({"digits": "results"}, "contains results/likelihood.csv"),
        ({"digits": "models"}, "contains models/"),
    ],
)
def test_a_source_that_holds_what_is_made_from_it_is_refused(place, paths, part):
    assert part in refusal(with_paths(**paths))


def test_a_folder_of_the_users_beside_the_artifacts_is_a_source(place):
    Path("data/texts").mkdir(parents=True)
    require_usable(with_paths(digits="data/texts"), with_sources=True)


@pytest.mark.parametrize("home", ["file", "file/below"])
def test_a_home_that_is_a_file_is_refused(place, monkeypatch, home):
    Path("file").touch()
    monkeypatch.setenv("HOME", str(place / home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(place))
    assert f"HOME is '{place / home}', and {place / 'file'} is a file" in refusal(parse_params(smoke()))
    with pytest.raises(ValueError, match="is a file; set HOME"):
        open_repo(place)


def test_a_home_that_cannot_be_written_needs_another_cache(place, monkeypatch):
    monkeypatch.setenv("HOME", str(place / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os, "access", lambda path, _: path != place)
    assert "Snakemake cannot write its cache to" in refusal(parse_params(smoke()))
    (place / "cache").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache"))
    require_usable(parse_params(smoke()), with_sources=True)


@pytest.mark.parametrize(
    ("path", "rule"),
    [("my/hidden", "my/.dvcignore:2:/hid*"), ("a.swp", ".dvcignore:1:*.swp"), (".git/x", "DVC's own rule '.git'")],
)
def test_a_source_that_dvc_does_not_see_is_refused(place, path, rule):
    Path(".dvcignore").write_text("*.swp\n")
    Path("my").mkdir()
    Path("my/.dvcignore").write_text("# mine\n/hid*\n")
    assert f"sources.digits.path: {path!r} is hidden from DVC by {rule};" in refusal(with_paths(digits=path))


def test_a_source_that_an_ignore_file_keeps_is_usable(place):
    Path(".dvcignore").write_text("*.txt\n!constraints.txt\n")
    require_usable(parse_params(smoke()), with_sources=True)


@pytest.mark.parametrize("link", ["models", "data", "data/raw", "models/chars_md4", "evaluations", "report"])
def test_an_output_behind_a_symlink_is_refused_before_a_run(place, tmp_path_factory, monkeypatch, link):
    disk = tmp_path_factory.mktemp("disk")
    (place / link).parent.mkdir(exist_ok=True)
    (place / link).symlink_to(disk)
    assert f"{link} is a symbolic link to '{disk}'" in refusal(parse_params(smoke()))
    monkeypatch.setenv("DVC_STAGE", "download@digits")
    monkeypatch.setattr("mdpipe.cli.watch_inputs", lambda *_: None)
    monkeypatch.setattr("mdpipe.cli.exit_with_engine", lambda: None)
    result = CliRunner().invoke(app, ["download", "digits"])
    assert result.exit_code == 1
    assert "is a symbolic link" in result.output
    assert list(disk.iterdir()) == []


def with_texts(path: str) -> Any:
    data = smoke()
    data["sources"]["texts"] = {"kind": "text", "path": path}
    return parse_params(data)


def test_files_behind_a_linked_folder_are_refused(place, tmp_path_factory, monkeypatch):
    """DVC does not look there, and would say "up to date" after a change."""
    disk = tmp_path_factory.mktemp("disk")
    (disk / "1.txt").write_text("one")
    Path("texts/more").mkdir(parents=True)
    for name in ("texts/0.txt", "texts/more/0.txt"):
        Path(name).write_text("zero")
    require_usable(with_texts("texts"), with_sources=True)
    Path("texts/more/linked.txt").symlink_to(disk / "1.txt")
    Path("texts/.cache").symlink_to(disk)
    require_usable(with_texts("texts"), with_sources=True)
    Path("texts/more/disk").symlink_to(disk)
    expected = "sources.texts.path: 'texts' has texts/more/disk, a link to a folder, where DVC would not notice"
    assert expected in refusal(with_texts("texts"))
    data = with_texts("texts").model_dump(mode="json")
    data["sources"]["texts"]["pattern"] = "*.txt"  # reads no folder
    require_usable(parse_params(data), with_sources=True)
    Path("whole").symlink_to(disk)
    require_usable(with_texts("whole"), with_sources=True)
    Path("params.yaml").write_text(yaml.safe_dump(with_texts("texts").model_dump(mode="json")))
    monkeypatch.setenv("DVC_STAGE", "download@texts")
    monkeypatch.setattr("mdpipe.cli.stage_params_file", lambda: Path("params.yaml"))
    monkeypatch.setattr("mdpipe.cli.watch_inputs", lambda *_: None)
    monkeypatch.setattr("mdpipe.cli.exit_with_engine", lambda: None)
    result = CliRunner().invoke(app, ["download", "texts"])
    assert result.exit_code == 1
    assert "a link to a folder, where DVC would not notice" in " ".join(result.output.split())
    assert not Path("data/raw/texts").exists()


@pytest.mark.parametrize("closed", ["data/raw", ".mdpipe/scratch", ".dvc/cache/files/md5/0a", ".dvc/tmp", "dvc.lock"])
def test_a_read_only_place_is_refused_before_a_stage_runs(place, monkeypatch, closed):
    shutil.copy(ROOT / "dvc.yaml", "dvc.yaml")
    for folder in ("data/raw", ".mdpipe/scratch", ".dvc/cache/files/md5/0a", ".dvc/tmp"):
        Path(folder).mkdir(parents=True)
    Path("dvc.lock").touch()
    monkeypatch.setattr(os, "access", lambda name, _: Path(name).absolute() != place / closed)
    monkeypatch.setenv("DVC_STAGE", "download@digits")
    monkeypatch.setattr("mdpipe.cli.watch_inputs", lambda *_: None)
    monkeypatch.setattr("mdpipe.cli.exit_with_engine", lambda: None)
    result = CliRunner().invoke(app, ["download", "digits"])
    assert f"cannot write in {closed}, where stages keep files: change owner or mode" in result.output
    assert not Path("data/raw/digits").exists()


def test_files_that_dvc_links_into_its_cache_are_no_such_links(place, tmp_path_factory):
    """`cache.type symlink`: the folders of an artifact are its own, the files links."""
    Path("evaluations").mkdir()
    Path("models/chars_md4").mkdir(parents=True)
    for file in ("evaluations/chars_md4.npy", "models/chars_md4/run.json"):
        Path(file).symlink_to(tmp_path_factory.getbasetemp() / "cached")
    require_usable(parse_params(smoke()), with_sources=True)


def test_a_working_copy_with_braces_in_its_path_is_refused(place, monkeypatch):
    (place / "a{x}b").mkdir()
    monkeypatch.chdir(place / "a{x}b")
    Path("constraints.txt").touch()
    assert "DVC takes no braces in a path" in refusal(parse_params(smoke()))
