"""`mdpipe verify` reads every byte, whatever DVC remembers, and leaves a state in which the next run restores all."""

import os
import shutil
from pathlib import Path

import pytest
from dvc.repo import Repo

from mdpipe.commands.upkeep import verify

MAKE = "mkdir -p folder; echo one > file; echo two > folder/part; echo three > folder/other; echo 4 > metric.json"
STAGES = f"""
stages:
  make:
    cmd: {MAKE}; echo x >> runs
    outs: [file, folder]
    metrics: [metric.json: {{cache: false}}]
"""
FILES = ("file", "folder/part", "metric.json")


@pytest.fixture(autouse=True)
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repo:
    monkeypatch.chdir(tmp_path)
    Repo.init(no_scm=True)
    Path("dvc.yaml").write_text(STAGES)
    Repo().reproduce()
    return Repo()


def rot(path: Path) -> None:
    """Change a byte as a disk does: nothing that DVC looks at tells."""
    status = path.stat()
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)
    path.chmod(status.st_mode)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def objects() -> list[Path]:
    return sorted(Path(".dvc/cache/files/md5").glob("??/*"))


def test_whole_artifacts_and_objects_are_counted():
    assert verify() == "3 outputs in dvc.lock and 4 objects in DVC's cache have the bytes they should have"


@pytest.mark.parametrize("file", FILES)
def test_a_rotten_output_is_named_and_restored_by_the_next_run(file):
    whole = Path(file).read_bytes()
    rot(Path(file))
    assert Repo().status() == {}
    with pytest.raises(ValueError, match=f"  {file}: changed$"):
        verify()
    Repo().reproduce()
    assert Path(file).read_bytes() == whole
    verify()


@pytest.mark.parametrize("number", range(4))
def test_a_rotten_object_is_named_and_removed(number):
    broken = objects()[number]
    rot(broken)
    with pytest.raises(ValueError, match=f"{broken}: removed from DVC's cache"):
        verify()
    assert broken not in objects()
    Repo().reproduce()
    assert broken in objects()
    verify()


def test_outputs_that_were_never_made_here_are_counted():
    """As in a fresh clone: neither the files nor their objects are here."""
    shutil.rmtree("folder")
    shutil.rmtree(".dvc/cache")
    said = verify()
    assert said.startswith("2 outputs in dvc.lock and 0 objects in DVC's cache have the bytes they should have\n")
    assert said.endswith("not here yet: 1 output, which `dvc pull` fetches and `snakemake` makes")
    Path("metric.json").unlink()  # This one is in git.
    with pytest.raises(ValueError, match=r"  metric\.json: missing$"):
        verify()


def test_a_missing_output_is_named():
    Path("folder/part").unlink()
    with pytest.raises(ValueError, match=r"  folder/part: missing$"):
        verify()


def test_what_a_kill_left_in_the_cache_is_no_object():
    (objects()[0].parent / ".tmp").write_text("half")
    verify()
