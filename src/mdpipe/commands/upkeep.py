"""Commands `mdpipe clean`, `unlock` and `verify`: what earlier params, kills and disks leave.

A renamed or deleted run, dataset or source leaves artifacts, metrics, logs, unfinished work and entries in dvc.lock.
DVC's cache keeps the artifacts, so that earlier params give them back, until `dvc gc --workspace` removes them there.

DVC writes its table of locks, `.dvc/tmp/rwlock`, in place: a kill in between leaves it empty, and every later DVC stops
at it. It also believes an entry while any process has its number, which after a restart of a container is soon another
one.

DVC hashes a file once and then goes by its size, inode and modification time; it does not hash read-only objects of its
cache at all. A disk can change bytes and leave all of these.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from dvc.exceptions import DvcException
from dvc.lock import LockError, make_lock
from dvc.repo import Repo
from dvc.rwlock import RWLOCK_FILE, RWLOCK_LOCK, SCHEMA
from dvc.utils.serialize import dumps_yaml, load_yaml
from dvc_data.hashfile.hash import hash_file
from dvc_data.hashfile.state import StateNoop
from filelock import FileLock, Timeout
from voluptuous import Invalid

from mdpipe.data.artifacts.files import atomic_write, folder_size
from mdpipe.data.dataset import EncodedDataset
from mdpipe.data.sources.download import URL_DIGITS, destination
from mdpipe.params import Params
from mdpipe.params.sources import UrlSource
from mdpipe.pipeline import paths
from mdpipe.pipeline.provenance import DVC_FILE, LOCK_FILE, output_patterns
from mdpipe.pipeline.run_hash import hash_encoding, hash_source
from mdpipe.stages.resolve import write_replicates

ANY = "*"

NAME = re.compile(r"\.?(?P<whole>[a-z][a-z0-9_]*(-[a-z][a-z0-9_]*){0,2}(\.(npy|json|csv|png))?)(\.partial|\.scratch)?")
"""Names of stages' outputs, finished or not. Other files in the same folders are the user's."""

DOWNLOAD = re.compile(rf"\.?(?P<url>[0-9a-f]{{{URL_DIGITS}}})-")
"""Name of a downloaded file. The cache of `datasets`, in the same folder, is kept."""

BY_STAGE = {"logs": ".log", "benchmarks": ".tsv"} | dict.fromkeys(
    (".mdpipe/requests", str(paths.REQUEUE_DIR), str(paths.JOBS_DIR)), ""
)
"""Folders with a file for each stage, and what its name ends with."""

REPO_LOCK = "lock"
"""The file in .dvc/tmp whose lock a DVC process holds while it runs no command of a stage; its content is the PID."""

OBJECT = re.compile(r"([0-9a-f]{32})(\.dir)?")
"""Hash of an object in DVC's cache, and the end of the name of one that lists a folder's files."""

Entry = dict[str, Any]
"""`pid` and `cmd`: the number and the `sys.argv` of a process."""


@contextmanager
def open_repository() -> Iterator[Repo]:
    """Open the repository and read its dvc.yaml and dvc.lock where they are needed; report DVC's errors in a line."""
    try:
        with Repo() as repo:
            yield repo
    except LockError:
        raise ValueError(
            "DVC or snakemake is running in this folder; wait until it ends, or see `mdpipe unlock`"
        ) from None
    except DvcException as error:
        raise ValueError(f"DVC: {' '.join(str(error).split())}") from None


def clean(params: Params, *, force: bool) -> str:
    """Return a list of what nothing asks for, with sizes; with `force`, remove it, unless an engine is at work."""
    with open_repository() as repo:
        write_replicates(params)  # DVC reads it to tell which stages there are.
        stages = {stage.addressing for stage in repo.index.stages}
        outputs = {Path(out.def_path) for stage in repo.index.stages for out in stage.outs}
        found = sorted({*_artifacts(params, outputs), *_by_stage(stages), *_state(params, repo)})
        entries = [name for name in _read_lock()["stages"] if name not in stages]
        sizes = [folder_size(path) for path in found]
        if force and (found or entries):
            with _no_engine(repo):
                for path in found:
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
                if entries:
                    lock = _read_lock()
                    lock["stages"] = {name: entry for name, entry in lock["stages"].items() if name not in entries}
                    atomic_write(LOCK_FILE, dumps_yaml(lock).encode())
    if not found and not entries:
        return "nothing is left over: params.yaml asks for all that is here"
    end = "removed" if force else "that nothing needs any more; `mdpipe clean --force` removes it"
    return "\n".join(
        [
            *(f"{_megabytes(size)}  {path}" for path, size in zip(found, sizes, strict=True)),
            *(f"{LOCK_FILE}: {name}" for name in entries),
            f"{_megabytes(sum(sizes))} {end}",
        ]
    )


def _artifacts(params: Params, outputs: set[Path]) -> Iterator[Path]:
    """Yield outputs, whole or not, of stages that there are no more."""
    tokenizers = (getattr(dataset.tokenizer, "path", None) for dataset in params.datasets.values())
    own = {Path(path) for path in (*(source.path for source in params.sources.values()), *tokenizers) if path}
    for pattern in output_patterns():
        for path in pattern.parent.glob(ANY):
            name = NAME.fullmatch(path.name)
            if name is None or Path(name["whole"]).suffix != pattern.suffix:
                continue
            whole = path.with_name(name["whole"])
            is_own = any(path.is_relative_to(kept) or kept.is_relative_to(path) for kept in own)
            if whole not in outputs and not is_own:
                yield path


def _by_stage(stages: set[str]) -> Iterator[Path]:
    """Yield logs and notes of stages that there are no more."""
    kinds = load_yaml(str(DVC_FILE))["stages"]
    for folder, end in BY_STAGE.items():
        for path in Path(folder).glob(f"*{end}"):
            stage = path.name.removesuffix(end)
            if stage not in stages and stage.partition("@")[0] in kinds:
                yield path


def _state(params: Params, repo: Repo) -> Iterator[Path]:
    """Yield downloads, unfinished work, checkpoints and events that no source, dataset or run goes on from."""
    resolved = [source.resolve() for source in params.sources.values()]
    addresses = [source.url for source in resolved if isinstance(source, UrlSource)]
    wanted = {destination(url, paths.DOWNLOADS).name[:URL_DIGITS] for url in addresses}
    for path in paths.DOWNLOADS.glob(ANY):
        fetched = DOWNLOAD.match(path.name)
        if fetched is not None and fetched["url"] not in wanted:
            yield path

    unfinished = {
        "download": {name: hash_source(params, name) for name in params.sources},
        "encode": {name: hash_encoding(params, name) for name in params.datasets},
    }
    for stage, run_hashes in unfinished.items():
        kept = {paths.work_dir(stage, name, run_hash) for name, run_hash in run_hashes.items()}
        yield from (path for path in paths.work_dirs(stage, ANY) if path not in kept)

    kept = set()
    for name in params.runs:
        if _is_recorded(repo, name):
            continue  # The model is in DVC's cache; another run starts from the beginning.
        run_hash = _hash_training(params, name)
        kept |= set(paths.checkpoint_dirs(name)) if run_hash is None else {paths.checkpoint_dir(name, run_hash)}
    yield from (path for path in paths.checkpoint_dirs(ANY) if path not in kept and not _is_training(path))
    yield from sorted(Path().glob(f"{paths.checkpoint_dir(ANY, ANY)}.discarded"))
    yield from (path for path in paths.events(ANY).parent.glob(ANY) if path.name not in params.runs)


def _is_recorded(repo: Repo, run: str) -> bool:
    """Return True if dvc.lock has the run's model as params, code and data are now."""
    stage = f"train@{run}"
    return stage in _read_lock()["stages"] and not repo.status(targets=[stage])


def _hash_training(params: Params, run: str) -> str | None:
    """Return the run hash that a run's checkpoints have now, or None while there are no data to compute it from."""
    from mdpipe.pipeline.run_hash import hash_training  # It loads torch.

    try:
        return hash_training(params, run, EncodedDataset.open(paths.encoded(params.runs[run].dataset), "train"))
    except ValueError:
        return None


def _is_training(checkpoint_dir: Path) -> bool:
    """Return True if a process trains in the folder of checkpoints."""
    from mdpipe.training.checkpoint import LOCK_FILE as TRAINING_LOCK  # It loads torch.

    if (checkpoint_dir / TRAINING_LOCK).exists():
        try:
            FileLock(checkpoint_dir / TRAINING_LOCK, blocking=False).acquire().lock.release()
        except Timeout:
            return True
    return False


@contextmanager
def _no_engine(repo: Repo) -> Iterator[None]:
    """Keep Snakemake out while the block runs; raise ValueError if it or DVC is at work."""
    paths.ENGINE_LOCK.parent.mkdir(exist_ok=True)
    try:
        with FileLock(paths.ENGINE_LOCK, blocking=False):
            if holders := lock_holders(repo):
                raise ValueError(f"DVC is running in this folder ({', '.join(holders)}); wait until it ends")
            yield
    except Timeout:
        engine = paths.ENGINE_LOCK.read_text().strip()
        raise ValueError(f"snakemake is running in this folder ({engine}); wait until it ends") from None


def _read_lock() -> dict[str, Any]:
    """Return dvc.lock; without stages if there is none."""
    lock = load_yaml(str(LOCK_FILE)) if LOCK_FILE.exists() else {}
    return {**lock, "stages": lock.get("stages", {})}


def _megabytes(size: int) -> str:
    """Return a size in megabytes, or in kilobytes where it is less than one."""
    return f"{size / 1e6:10,.1f} MB" if size >= 1e6 else f"{size / 1e3:10,.1f} kB"


def unlock() -> str:
    """Repair the table of locks of the repository in this folder; return what was done and who still holds locks."""
    with open_repository() as repo:
        lines = repair_rwlock(repo)
        lines += [f"in use by {holder}" for holder in lock_holders(repo)]
    return "\n".join(lines or ["no process holds a lock of DVC"])


def repair_rwlock(repo: Repo) -> list[str]:
    """Rename an unreadable table and drop the entries of processes that are gone; return a line for each.

    Raises:
        dvc.lock.LockError: Another process edits the table for longer than three seconds.
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
        return dict(SCHEMA(json.loads(table.read_bytes())))
    except (FileNotFoundError, ValueError, Invalid):
        return None


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
    except psutil.AccessDenied:  # It belongs to another user and cannot be inspected, so it counts as alive.
        return True


def verify() -> str:
    """Return how much was verified; broken objects are removed, and broken artifacts marked for DVC to look at again.

    Raises:
        ValueError: Something is broken; the message names each file and says how to restore it.
    """
    with open_repository() as repo:
        cache = repo.cache.local
        cache.state = StateNoop()  # DVC's record of files is not trusted here.
        outputs = [out for stage in repo.index.stages for out in stage.outs if out.hash_info]
        absent = [
            out
            for out in outputs
            if out.use_cache and not out.exists and not Path(cache.oid_to_path(out.hash_info.value)).exists()
        ]
        named = {path: OBJECT.fullmatch(path.parent.name + path.name) for path in Path(cache.path).glob("??/*")}
        objects = {path: name[1] for path, name in sorted(named.items()) if name}
        broken_objects = [path for path, name in objects.items() if _hash(cache, path) != name]
        for path in broken_objects:
            path.unlink()
        present = [out for out in outputs if out not in absent]
        broken_files = [file for out in present for file in _broken_files(cache, out)]
        shown = [f"  {os.path.relpath(path)}: removed from DVC's cache" for path in broken_objects]
        for file in broken_files:
            shown.append(f"  {os.path.relpath(file)}: {'changed' if file.exists() else 'missing'}")
            if file.exists():
                os.utime(file)
    if shown:
        raise ValueError(
            "not the bytes that dvc.lock and DVC's cache should have; `snakemake` restores these files or makes them"
            " again:\n" + "\n".join(shown)
        )
    lines = [
        f"{len(present)} outputs in dvc.lock and {len(objects)} objects in DVC's cache have the bytes they should have"
    ]
    if absent:
        lines.append(
            f"{len(absent)} outputs in dvc.lock are not here yet: `dvc pull` fetches them, `snakemake` makes them"
        )
    return "\n".join(lines)


def _broken_files(cache: Any, output: Any) -> Iterator[Path]:
    """Yield the files of an output that are not as dvc.lock says, or the output where the cache lists no files."""
    if output.exists and output.get_hash() == output.hash_info:
        return
    whole = Path(output.fs_path)
    named = [
        whole.joinpath(*key)
        for key, _, hash_info in (output.get_obj() or [] if output.is_dir_checksum else [])
        if _hash(cache, whole.joinpath(*key)) != hash_info.value
    ]
    yield from named or [whole]


def _hash(cache: Any, path: Path) -> str | None:
    """Return the hash of a file, or None if there is none."""
    if not path.is_file():
        return None
    return str(hash_file(str(path), cache.fs, cache.hash_name)[1].value)
