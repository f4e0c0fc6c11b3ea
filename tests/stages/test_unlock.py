"""After a kill, run the same command again: no lock of DVC outlives the process that held it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from dvc.lock import LockError
from dvc.repo import Repo

from mdpipe.commands.upkeep import lock_holders, repair_rwlock, unlock
from mdpipe.params import parse_params
from tests.stages.plan_rows import smoke
from workflow.engine import mark_stale_stages

TABLE = Path(".dvc/tmp/rwlock")
SLEEP = "import time; time.sleep(60)"
STAGES = {"resolve": {"cmd": "echo > resolved", "outs": ["resolved"]}, "make": {"cmd": "echo > file", "outs": ["file"]}}
PARAMS = parse_params(smoke())


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repo:
    """A repository with one stage, which has run."""
    monkeypatch.chdir(tmp_path)
    Repo.init(no_scm=True)
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": STAGES}))
    Repo().reproduce()
    return Repo()


@pytest.fixture
def process(repo: Repo) -> Iterator["subprocess.Popen[bytes]"]:
    """A process at work in the repository."""
    with subprocess.Popen([sys.executable, "-c", SLEEP, "repro"]) as started:
        yield started
        started.kill()


def write_entry(pid: int, cmd: str) -> None:
    entry = {"pid": pid, "cmd": cmd}
    TABLE.write_text(json.dumps({"write": {str(Path("file").resolve()): entry}, "read": {"/other": [entry]}}))


@pytest.mark.parametrize("content", [b"", b'{"write": {"/a": {"pid', b"[]", b'{"write": {"/a": 3}}', b"\xff\xfe"])
def test_an_unreadable_table_is_set_aside(repo, content):
    TABLE.write_bytes(content)
    with pytest.raises(Exception, match=r"(?i)rwlock|decode"):
        Repo().status()
    (line,) = repair_rwlock(repo)
    assert line == ".dvc/tmp/rwlock was cut short by a kill; it is now .dvc/tmp/rwlock.broken"
    assert TABLE.with_name("rwlock.broken").read_bytes() == content
    assert Repo().status() == {}


def test_an_entry_ends_with_its_process_despite_pid_reuse(repo, process):
    write_entry(process.pid, "/usr/bin/dvc repro train@chars_md4")
    with pytest.raises(LockError):
        Repo().status()
    (line,) = repair_rwlock(repo)
    assert line == f".dvc/tmp/rwlock: process {process.pid} (dvc repro train@chars_md4) is gone; its locks are removed"
    assert json.loads(TABLE.read_text()) == {"write": {}, "read": {}}
    assert Repo().status() == {}


def test_an_entry_of_a_process_elsewhere_is_not_believed(repo, tmp_path_factory):
    with subprocess.Popen([sys.executable, "-c", SLEEP, "repro"], cwd=tmp_path_factory.mktemp("elsewhere")) as other:
        write_entry(other.pid, "dvc repro")
        assert len(repair_rwlock(repo)) == 1
        other.kill()


def test_the_locks_of_a_live_process_stay_and_it_is_named(repo, process):
    write_entry(process.pid, "/usr/bin/dvc repro")
    before = TABLE.read_bytes()
    assert repair_rwlock(repo) == []
    assert TABLE.read_bytes() == before
    with pytest.raises(BlockingIOError, match=rf"DVC is at work in this folder \(process {process.pid}: dvc repro\)"):
        mark_stale_stages(repo, [], dry_run=False)
    assert unlock() == f"in use by process {process.pid}: dvc repro"
    process.kill()
    process.wait()
    mark_stale_stages(repo, [], dry_run=False)


def test_the_holder_of_the_lock_of_the_whole_repository_is_named(repo):
    code = "import time; from dvc.repo import Repo; Repo().lock.lock(); print(1, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        (found,) = lock_holders(repo)
        assert found.startswith(f"process {holder.pid}: ")
        holder.kill()
    assert lock_holders(repo) == []


def test_this_process_does_not_block_itself(repo):
    write_entry(os.getpid(), " ".join(sys.argv))
    repair_rwlock(repo)
    assert lock_holders(repo) == []
    assert unlock() == "no process holds a lock of DVC"
