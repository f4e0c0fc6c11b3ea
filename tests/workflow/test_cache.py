"""A broken object in DVC's cache is never restored: it is named and removed, and its stage runs again."""

import os
import sys
from pathlib import Path

import pytest
from dvc.repo import Repo
from dvc.stage.cache import StageCache
from dvc_data.hashfile import transfer
from dvc_data.hashfile.db.local import LocalHashFileDB

from tests.small_disk import small_disk
from workflow.cache import stop_at_full_disk, verify_objects

ROOT = Path(__file__).parents[2]
SCRIPT = """
from pathlib import Path
Path("file").write_bytes(bytes(range(256)))
Path("folder").mkdir(exist_ok=True)
Path("folder/part").write_bytes(bytes(range(255)))
with Path("runs").open("a") as runs:
    runs.write("x")
"""
STAGES = f"""
stages:
  make:
    cmd: {sys.executable} make.py
    deps: [make.py]
    outs: [file, folder]
"""


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repo:
    """A repository with the settings of this one and a stage that has run once."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(LocalHashFileDB, "check", LocalHashFileDB.check)  # Put back afterwards.
    monkeypatch.setattr(StageCache, "restore", StageCache.restore)
    monkeypatch.setattr(transfer, "_log_exception", transfer._log_exception)
    Repo.init(no_scm=True)
    settings = (ROOT / ".dvc/config").read_text().replace("[core]\n", "[core]\n    no_scm = true\n")
    Path(".dvc/config").write_text(settings)
    Path("make.py").write_text(SCRIPT)
    Path("dvc.yaml").write_text(STAGES)
    Repo().reproduce()
    return Repo()


def object_of(repo: Repo, output: str) -> Path:
    """The object that an output's file is stored in."""
    for stage in repo.index.stages:
        for out in stage.outs:
            if out.def_path == output:
                oids = (
                    [hash_info.value for _, _, hash_info in out.get_obj()]
                    if out.is_dir_checksum
                    else [out.hash_info.value]
                )
                return Path(repo.cache.local.oid_to_path(oids[0]))
    raise LookupError(output)


def flip(path: Path, *, keep_time: bool = False) -> None:
    """Change one byte in place and leave the file as writable as it was, as root or a disk does."""
    status = path.stat()
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[7] ^= 0x40
    path.write_bytes(content)
    path.chmod(status.st_mode)
    if keep_time:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("file", ["file", "folder/part"])
def test_an_edit_in_place_leaves_the_object_alone_and_is_undone(repo, file):
    """Also by DVC alone."""
    whole = Path(file).read_bytes()
    flip(Path(file))
    assert "make" in repo.status()
    repo.reproduce()
    assert Path(file).read_bytes() == whole
    assert Path("runs").read_text() == "x"


@pytest.mark.parametrize("keep_time", [False, True], ids=["edit", "disk"])
@pytest.mark.parametrize("file", ["file", "folder/part"])
def test_a_broken_object_is_removed_and_its_stage_runs_again(repo, file, keep_time, capsys):
    whole = Path(file).read_bytes()
    broken = object_of(repo, file.partition("/")[0])
    flip(broken, keep_time=keep_time)
    Path(file).unlink()
    verify_objects(remove=True)
    Repo().reproduce()
    assert Path(file).read_bytes() == whole
    assert broken.read_bytes() == whole
    assert Path("runs").read_text() == "xx"
    assert f"{broken.relative_to(Path.cwd())} is broken" in capsys.readouterr().err


def test_a_broken_object_is_missing_although_its_output_is_whole(repo):
    """A dry run says so and removes nothing."""
    broken = object_of(repo, "file")
    flip(broken)
    assert repo.status() == {}
    verify_objects(remove=False)
    assert "not in cache" in str(Repo().status())
    assert broken.exists()


def test_a_folder_whose_list_of_files_is_broken_is_made_again(repo):
    listing = Path(repo.cache.local.oid_to_path(repo.index.stages[0].outs[1].hash_info.value))
    listing.chmod(0o644)
    listing.write_text(listing.read_text().replace('"part"', '"past"'))
    listing.chmod(0o444)
    (Path("folder") / "part").unlink()
    verify_objects(remove=True)
    Repo().reproduce()
    assert [path.name for path in Path("folder").iterdir()] == ["part"]
    assert '"part"' in listing.read_text()


def test_whole_objects_are_restored_without_running(repo):
    Path("file").unlink()
    verify_objects(remove=True)
    Repo().reproduce()
    assert Path("runs").read_text() == "x"
    assert Repo().status() == {}


def test_an_output_that_exceeds_the_cache_is_not_recorded(repo):
    lock = Path("dvc.lock").read_bytes()
    Path("file").write_bytes(bytes(10**7))
    stop_at_full_disk()
    with small_disk(5 * 10**6), pytest.raises(OSError, match=r"File too large: .*/file' -> .*/cache/"):
        Repo().commit(force=True)
    assert Path("dvc.lock").read_bytes() == lock
