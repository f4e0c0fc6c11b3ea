"""A job writes the lock file that DVC would write, and records its stage."""

import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.utils.serialize import _yaml, modify_yaml

from mdpipe.pipeline import paths
from mdpipe.pipeline.provenance import code_commit
from workflow.job import record_job, update_lock_file_fast

LOCK_FILE = Path(__file__).parents[2] / "dvc.lock"


Update = Callable[[dict[str, Any]], object]


def remove_change_and_add(lock: dict[str, Any]) -> None:
    """Remove an entry, change one and add one, with all kinds of values that params can have."""
    stages = lock["stages"]
    del stages["report"]
    stages["train@chars_ar"]["params"] = {"params.yaml": {"a": 1e-05, "b": None, "c": ["1.0", "yes", 1.0, True]}}
    stages["new"] = {"cmd": "mdpipe new", "deps": [{"path": "x y", "md5": "0e1", "size": 3}]}


def add_texts(lock: dict[str, Any]) -> None:
    """Add an entry with texts that need quotes, escapes or several lines."""
    texts = [
        "",
        " a",
        "a: b",
        "a #b",
        "- a",
        "null",
        "~",
        "0x1",
        "1_0",
        "2020-01-01",
        "\t",
        "a\n\n b\n",
        "'",
        '"',
        "é",
        "😀",
    ]
    lock["stages"]["new"] = {"cmd": "echo " + "word " * 40, "params": {"p": {text: [text] for text in texts}}}


def change_type_and_order(lock: dict[str, Any]) -> None:
    """Change the type of a value and the order of keys, so that the entries still compare as equal."""
    outputs = lock["stages"]["resolve"]["outs"]
    outputs[0]["size"] = float(outputs[0]["size"])
    outputs[1] = dict(reversed([*outputs[1].items()]))


def repeat_an_object(lock: dict[str, Any]) -> None:
    """Add an object twice to one entry and to another, which YAML writes with anchors."""
    lock["stages"]["new"] = {"cmd": "a", "deps": [shared := {"path": "x"}, shared]}
    lock["stages"]["newer"] = {"cmd": "b", "deps": [other := {"path": "y"}, other]}


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        remove_change_and_add,
        add_texts,
        change_type_and_order,
        repeat_an_object,
        lambda lock: lock["stages"].clear(),
        lambda lock: lock.update(datasets=[{"name": "a"}]),
        lambda lock: lock.clear(),
    ],
)
def test_a_fast_update_of_the_lock_file_writes_dvcs_bytes(
    change: Update, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each change is made to the lock file, and then to what that made of it."""

    def update(name: str) -> list[bytes]:
        path, written = Path(shutil.copy(LOCK_FILE, tmp_path / name)), []
        for one in (change, lambda lock: lock.update(schema="2.0")):
            with modify_yaml(path) as lock:
                one(lock)
            written.append(path.read_bytes())
        return written

    plain = update("plain")
    for name in ("parse_yaml_for_update", "_dump"):
        monkeypatch.setattr(_yaml, name, getattr(_yaml, name))  # Restored afterwards.
    update_lock_file_fast()
    assert update("fast") == plain != [LOCK_FILE.read_bytes()] * 2


def test_an_update_of_the_lock_file_writes_one_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dumped: list[dict[str, Any]] = []
    monkeypatch.setattr(_yaml, "_dump", lambda data, _: dumped.append(data))
    monkeypatch.setattr(_yaml, "parse_yaml_for_update", None)
    update_lock_file_fast()
    with modify_yaml(shutil.copy(LOCK_FILE, tmp_path)) as lock:
        lock["stages"]["report"] = {"cmd": "x"}
    assert dumped == [{"stages": {"report": {"cmd": "x"}}}]


def test_a_job_records_its_cpu_seconds_and_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outs = [{"path": "models/chars_md4", "hash": "md5", "md5": "0a.dir"}]
    Path("dvc.lock").write_text(
        yaml.safe_dump({"schema": "2.0", "stages": {"train@chars_md4": {"cmd": "x", "outs": outs}}})
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", "sum(range(10**6))"], check=True)
    record_job("train@chars_md4")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    record = json.loads((paths.JOBS_DIR / "train@chars_md4").read_text())
    assert record["cpu_seconds"] == pytest.approx(after.ru_utime + after.ru_stime, abs=0.2)
    assert record["cpu_seconds"] > before.ru_utime + before.ru_stime
    assert record["outputs"] == {"models/chars_md4": "0a.dir"}
    assert record["commit"] == code_commit()
