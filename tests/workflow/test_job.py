"""A job writes the lock file that DVC would write, and the CPU seconds of its stage."""

import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from dvc.utils.serialize import _yaml, modify_yaml

from mdpipe.pipeline import paths
from workflow.job import read_lock_file_fast, write_cpu_seconds

LOCK_FILE = Path(__file__).parents[2] / "dvc.lock"


@pytest.mark.slow
def test_the_fast_way_to_update_the_lock_file_writes_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stage is taken out, another is changed, a third is new, with all kinds of values that params can have."""

    def update(name: str) -> bytes:
        path = shutil.copy(LOCK_FILE, tmp_path / name)
        with modify_yaml(path) as lock:
            stages = lock["stages"]
            del stages["report"]
            stages["train@chars_ar"]["params"] = {
                "params.yaml": {"a": 1e-05, "b": None, "c": ["1.0", "yes", 1.0, True]}
            }
            stages["new"] = {"cmd": "mdpipe new", "deps": [{"path": "x y", "md5": "0e1", "size": 3}]}
        return Path(path).read_bytes()

    plain = update("plain")
    monkeypatch.setattr(_yaml, "parse_yaml_for_update", _yaml.parse_yaml_for_update)  # Put back afterwards.
    read_lock_file_fast()
    assert update("fast") == plain != LOCK_FILE.read_bytes()


def test_cpu_seconds_are_those_of_finished_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", "sum(range(10**6))"], check=True)
    write_cpu_seconds("train@chars_md4")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    written = float((paths.CPU_SECONDS_DIR / "train@chars_md4").read_text())
    assert written == pytest.approx(after.ru_utime + after.ru_stime, abs=0.01)
    assert written > before.ru_utime + before.ru_stime
