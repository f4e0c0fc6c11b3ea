"""What Snakemake's main process repairs, what it leaves to the user, and what it says where it cannot start."""

import os
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from dvc.repo import Repo

from mdpipe.params import PARAMS_FILE, RESOLVED_PARAMS_FILE, dump_params, load_params
from mdpipe.params.root import REPLICATES_FILE
from mdpipe.pipeline.provenance import RESOLVE
from workflow.engine import (
    FOLDER_TIMESTAMP,
    STATE,
    LockFileError,
    acquire_workflow_lock,
    leftover_note,
    mark_stale_stages,
    open_repo,
    params_for_dvc,
    repair_lock_file,
    request_file,
    require_writable_outputs,
)
from workflow.graph import Stage, find_leftovers

SMOKE = Path(__file__).parents[2] / "workflow/presets/smoke.yaml"

CONFLICT = """\
schema: '2.0'
stages:
<<<<<<< HEAD
  a: {cmd: one}
=======
  a: {cmd: two}
>>>>>>> branch
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    STATE.mkdir()


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_merge_conflict_is_named_and_left_alone(dry_run):
    Path("dvc.lock").write_text(CONFLICT)
    with pytest.raises(LockFileError, match=r"has merge conflicts.*git checkout --ours dvc\.lock"):
        repair_lock_file(dry_run=dry_run)
    assert Path("dvc.lock").read_text() == CONFLICT


@pytest.mark.parametrize("content", ["", "schema: '2.0'\nstages:\n  a: {cmd", "- a\n"])
def test_a_lock_file_cut_short_is_set_aside_but_not_by_a_dry_run(content, capsys):
    Path("dvc.lock").write_text(content)
    with pytest.raises(LockFileError, match="without --dry-run"):
        repair_lock_file(dry_run=True)
    assert Path("dvc.lock").read_text() == content
    repair_lock_file(dry_run=False)
    assert not Path("dvc.lock").exists()
    assert (STATE / "dvc.lock.broken").read_text() == content
    assert "dvc.lock was cut short" in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, "schema: '2.0'\nstages: {}\n"])
def test_a_whole_or_missing_lock_file_is_left_alone(content):
    if content is not None:
        Path("dvc.lock").write_text(content)
    repair_lock_file(dry_run=False)
    assert not (STATE / "dvc.lock.broken").exists()
    assert Path("dvc.lock").exists() is (content is not None)


def test_a_folder_that_git_does_not_know_says_to_run_git_init(tmp_path: Path) -> None:
    Repo.init(str(tmp_path), no_scm=True)
    (tmp_path / ".dvc/config").write_text("")  # As in an archive of the repository, which has git elsewhere.
    with pytest.raises(ValueError, match=r"is not a git repository, which DVC needs: run `git init` there"):
        open_repo(tmp_path)
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    assert open_repo(tmp_path).root_dir == str(tmp_path)


def test_a_folder_without_dvcs_settings_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no folder \.dvc"):
        open_repo(tmp_path)


def test_a_stale_stage_is_newer_than_outputs_of_the_future(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock was set back: Snakemake would take such outputs for newer than the request."""
    monkeypatch.setattr("workflow.engine.repair_rwlock", lambda repo: [])
    outputs = [Path("folder", FOLDER_TIMESTAMP), Path("file.json")]
    outputs[0].parent.mkdir()
    for path in outputs:
        path.touch()
        os.utime(path, (2**32, 2**32))
    stage = Stage("stale", "", (), ("folder", "file.json", "missing.json"), 1, 0, 1, 1, "", ())
    repo = SimpleNamespace(status=lambda targets=None: {} if targets else {"stale": []})
    mark_stale_stages(repo, [stage], dry_run=False)
    assert all(path.stat().st_mtime < request_file("stale").stat().st_mtime for path in outputs)


def test_a_read_only_folder_of_an_output_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("models").mkdir()
    monkeypatch.setattr(os, "access", lambda folder, _: Path(folder).name != "models")  # Root may write anywhere.
    stage = Stage("train", "", (), ("models/chars_md4", "metrics/train.json"), 1, 0, 1, 1, "", ())
    require_writable_outputs([])
    with pytest.raises(ValueError, match=r"^cannot write in models, where stages keep files: change owner or mode"):
        require_writable_outputs([stage])


@pytest.mark.parametrize("closed", [".mdpipe", ".mdpipe/requests", ".mdpipe/engine.lock"])
def test_read_only_state_is_named_with_a_remedy(closed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".mdpipe/requests").mkdir()
    Path(".mdpipe/engine.lock").touch()
    monkeypatch.setattr(os, "access", lambda place, _: Path(place).absolute() != Path(closed).absolute())
    with pytest.raises(ValueError, match=rf"^cannot write in {closed}, .*: change owner or mode"):
        acquire_workflow_lock()


def test_a_full_disk_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(ValueError, match=r"^the disk is full: 0\.0 MB free; make room, and run the same"):
        acquire_workflow_lock()
    assert not Path(".mdpipe/engine.lock").exists()


def test_files_of_earlier_params_in_a_shared_folder_are_found() -> None:
    for name in ("metrics/encode/a.json", "metrics/encode/old.json", "metrics/encode/.gitignore", "metrics/old/x.csv"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    made = Stage("encode@a", "", ("src",), ("metrics/encode/a.json",), 1, 0, 1, 1, "", ())
    report = Stage("report", "", ("metrics", "src"), ("report",), 1, 0, 1, 1, "", ())
    Path("src/code").mkdir(parents=True)
    found = [Path("metrics/encode/old.json"), Path("metrics/old")]
    assert list(find_leftovers(report, [made, report])) == found
    assert list(find_leftovers(made, [made, report])) == []
    note = leftover_note("report", found)
    assert note.startswith(
        "report also depends on 2 files in metrics of earlier params, such as metrics/encode/old.json;"
    )
    assert "`mdpipe clean --force` removes them" in note


def test_a_dry_run_asks_with_new_params_and_leaves_the_old_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only with the new values on the disk does DVC know what is stale; a dry run changes nothing."""
    monkeypatch.setattr("workflow.engine.repair_rwlock", lambda repo: [])
    seen: list[str] = []

    def status(targets: list[str] | None = None) -> dict[str, list[object]]:
        seen.append(RESOLVED_PARAMS_FILE.read_text())
        return {RESOLVE: [], "train@chars_md4": []}

    RESOLVED_PARAMS_FILE.write_text("seed: 1\n")
    shutil.copy(SMOKE, PARAMS_FILE)
    params = load_params()
    repo = SimpleNamespace(status=status)
    with params_for_dvc(params, dry_run=True):
        planned = mark_stale_stages(repo, [], dry_run=True)
    assert planned == {"train@chars_md4"}
    assert seen == [dump_params(params)]
    assert RESOLVED_PARAMS_FILE.read_text() == "seed: 1\n"
    assert not REPLICATES_FILE.exists()
