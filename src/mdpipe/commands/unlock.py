"""Command `mdpipe unlock`: remove what killed DVC processes left in DVC's table of locks, `.dvc/tmp/rwlock`.

DVC writes the table in place: a kill in between leaves it empty, and every later DVC stops at it. It also believes an
entry while any process has its number, which after a restart of a container is soon another one.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from dvc.exceptions import DvcException
from dvc.lock import make_lock
from dvc.repo import Repo
from dvc.rwlock import RWLOCK_FILE, RWLOCK_LOCK, SCHEMA
from voluptuous import Invalid

from mdpipe.data.artifacts.files import atomic_write

REPO_LOCK = "lock"
"""The file in .dvc/tmp whose lock a DVC process holds while it runs no command of a stage; its content is the PID."""

Entry = dict[str, Any]
"""`pid` and `cmd`: the number and the `sys.argv` of a process."""


@contextmanager
def open_repository() -> Iterator[Repo]:
    """Open the repository and read its dvc.yaml and dvc.lock where they are needed.

    Raises:
        ValueError: this is no repository, or DVC cannot read it or is at work in it.
    """
    try:
        with Repo() as repo:
            yield repo
    except DvcException as error:
        raise ValueError(f"DVC: {' '.join(str(error).split())}") from None


def unlock() -> str:
    """Repair the table of locks of the repository in this folder; return what was done and who still holds locks."""
    with open_repository() as repo:
        lines = repair_rwlock(repo)
        lines += [f"in use by {holder}" for holder in lock_holders(repo)]
    return "\n".join(lines or ["no process holds a lock of DVC"])


def repair_rwlock(repo: Repo) -> list[str]:
    """Rename an unreadable table and drop the entries of processes that are gone; return a line for each.

    Raises:
        dvc.lock.LockError: another process edits the table for longer than three seconds.
    """
    table = Path(repo.tmp_dir) / RWLOCK_FILE
    if not table.exists():
        return []
    guard = make_lock(
        str(table.with_name(RWLOCK_LOCK)),
        tmp_dir=repo.tmp_dir,
        hardlink_lock=repo.config["core"].get("hardlink_lock", False),
    )
    with guard:
        shown = os.path.relpath(table)
        entries = _read(table)
        if entries is None:
            backup = table.with_name(f"{RWLOCK_FILE}.broken")
            table.replace(backup)
            return [f"{shown} was cut short by a kill; it is now {os.path.relpath(backup)}"]
        root = Path(repo.root_dir)
        gone = [entry for entry in _entries(entries) if not _holds_lock(entry, root)]
        if not gone:
            return []
        entries["write"] = {path: entry for path, entry in entries["write"].items() if entry not in gone}
        entries["read"] = {
            path: kept
            for path, readers in entries["read"].items()
            if (kept := [entry for entry in readers if entry not in gone])
        }
        atomic_write(table, json.dumps(entries).encode())
        names = sorted({(entry["pid"], Path(entry["cmd"]).name) for entry in gone})
        return [f"{shown}: process {pid} ({command}) is gone; its locks are removed" for pid, command in names]


def lock_holders(repo: Repo) -> list[str]:
    """Return the other processes that hold locks of DVC in this repository, as `process 123: dvc repro`."""
    root, folder = Path(repo.root_dir), Path(repo.tmp_dir)
    entries = _read(folder / RWLOCK_FILE) or {"read": {}, "write": {}}
    holders = {entry["pid"]: entry["cmd"] for entry in _entries(entries) if _holds_lock(entry, root)}
    try:
        pid = int((folder / REPO_LOCK).read_text())
        process = psutil.Process(pid)
        if pid != os.getpid() and Path(process.cwd()).is_relative_to(root):
            holders.setdefault(pid, " ".join(process.cmdline()[1:]))
    except (OSError, ValueError, psutil.Error):
        pass  # Nothing has been locked yet, or by a process that is gone or belongs to another user.
    return [f"process {pid}: {Path(command).name}" for pid, command in sorted(holders.items())]


def _read(table: Path) -> dict[str, Any] | None:
    """Return the table, or None if it is not what DVC writes."""
    try:
        content: dict[str, Any] = SCHEMA(json.loads(table.read_bytes()))
    except (FileNotFoundError, ValueError, Invalid):
        return None
    return content


def _entries(content: dict[str, Any]) -> Iterator[Entry]:
    yield from content["write"].values()
    for readers in content["read"].values():
        yield from readers


def _holds_lock(entry: Entry, root: Path) -> bool:
    """Return True if the process that wrote an entry is alive, and its PID does not belong to another one by now.

    It has the same arguments and is in the same repository. Start times are not compared: the clock may have been set
    since. This process itself holds no lock.
    """
    arguments = entry["cmd"].partition(" ")[2]
    try:
        process = psutil.Process(entry["pid"])
        return (
            process.pid != os.getpid()
            and process.status() != psutil.STATUS_ZOMBIE
            and " ".join(process.cmdline()).endswith(arguments)
            and Path(process.cwd()).is_relative_to(root)
        )
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:  # Another user's: it cannot be looked at, so it is believed.
        return True
