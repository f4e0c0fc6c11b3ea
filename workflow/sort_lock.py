"""Sort dvc.lock by stage name, so that its history in git shows what changed and not which stage finished first.

Runs as the last command of the last stage, when no other stage is being written. DVC then updates the entry of that
stage where it stands; for its first time an entry is put there to keep the place.
"""

from pathlib import Path
from typing import Any

from dvc.utils.serialize import dump_yaml, load_yaml

LOCK_FILE = Path("dvc.lock")
LAST_STAGE = "report"


def sort_lock(path: Path = LOCK_FILE) -> None:
    """Rewrite the lock file, sorted; write aside, then rename. A missing file is left missing."""
    if not path.exists():
        return
    lock = load_yaml(str(path))
    stages: dict[str, Any] = lock.get("stages") or {}
    if list(stages) == sorted({*stages, LAST_STAGE}):
        return
    complete = {LAST_STAGE: {"cmd": "not yet run"}, **stages}
    lock["stages"] = {name: complete[name] for name in sorted(complete)}
    aside = path.with_suffix(".lock.new")
    dump_yaml(str(aside), lock)
    aside.replace(path)


if __name__ == "__main__":
    sort_lock()
