"""Sort dvc.lock by stage name, so that its history in git shows what changed and not which stage finished first.

Runs as the last command of the last stage, when no other stage is being written. DVC then updates the entry of that
stage in place; before its first run a placeholder keeps its position. As a script it imports DVC only.
"""

from pathlib import Path
from typing import Any

from dvc.utils.serialize import dump_yaml, load_yaml

LOCK_FILE = Path("dvc.lock")
LAST_STAGE = "report"


def sort_lock(path: Path = LOCK_FILE) -> None:
    """Sort the lock file atomically; do nothing if it is missing."""
    if not path.exists():
        return
    lock = load_yaml(str(path))
    stages: dict[str, Any] = lock.get("stages") or {}
    if list(stages) == sorted({*stages, LAST_STAGE}):
        return
    complete = {LAST_STAGE: {"cmd": "not yet run"}, **stages}
    lock["stages"] = {name: complete[name] for name in sorted(complete)}
    partial = path.with_suffix(".lock.new")
    dump_yaml(str(partial), lock)
    partial.replace(path)


if __name__ == "__main__":
    sort_lock()
