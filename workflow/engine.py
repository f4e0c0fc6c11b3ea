"""Preparation in Snakemake's main process: lock the working copy, repair it after a kill, find stale stages with DVC.

DVC decides by content which stages are stale, and Snakemake only orders the work. The request file of a stage is the
only input of its rule whose modification time matters. It gets a new nonce if the stage is stale, so that Snakemake
runs the stage, and is older than all outputs otherwise.
"""

import fcntl
import logging
import os
import re
import shutil
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import snakemake.api  # First, because its modules import each other in a circle.
import snakemake.logging
import voluptuous
from dvc.dependency import param
from dvc.exceptions import NotDvcRepoError
from dvc.lock import LockError
from dvc.repo import Repo
from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from dvc.scm import SCMError
from dvc.utils.serialize import ParseError, load_path, load_yaml
from filelock import FileLock, Timeout
from snakemake.exceptions import MissingRuleException
from snakemake.workflow import Workflow
from snakemake_interface_logger_plugins.common import LogEvent

from mdpipe.commands.upkeep import lock_holders, repair_rwlock
from mdpipe.data.artifacts.files import atomic_write
from mdpipe.messages import printable_lines, without_secrets
from mdpipe.params import RESOLVED_PARAMS_FILE, Params, dump_params
from mdpipe.params.errors import did_you_mean
from mdpipe.params.root import REPLICATES_FILE
from mdpipe.pipeline.paths import ENGINE_LOCK
from mdpipe.pipeline.preflight import (
    dvc_targets,
    home_problems,
    require_usable,
    require_writable,
    state_folders,
    unfit_sources,
)
from mdpipe.pipeline.provenance import RESOLVE
from mdpipe.stages.resolve import write_if_changed, write_replicates
from workflow.cache import verify_objects
from workflow.graph import (
    Stage,
    find_leftovers,
    makers_of,
    needed_stages,
    require_dependencies,
    unknown_targets,
    with_dependents,
)
from workflow.job import ENGINE_PID, JOBS_LOCK
from workflow.leave_to_dvc import ignore_clock_skew, keep_outputs
from workflow.sort_lock import LOCK_FILE

STATE = Path(".mdpipe")
REQUESTS = STATE / "requests"
CONFLICT = re.compile(rb"^(<{7} |={7}$|>{7} )", re.MULTILINE)
"""Git's conflict markers."""

MIN_FREE_BYTES = 2**20
"""Bytes that Snakemake needs for its state and logs; with less, each log record ends in a traceback."""

BEFORE_ALL_OUTPUTS = (0, 0)
"""Times of access and modification in seconds since 1970."""

LOG_LINES, LOG_WIDTH = 15, 1000
"""Maximum number of lines of a failed job's log to show, and of characters per line."""
LOG_BYTES = 2**20
"""Bytes read from the end of a log."""

FOLDER_TIMESTAMP = ".snakemake_timestamp"
"""Snakemake uses the modification time of this file in a folder as the modification time of the folder."""

_execute = Workflow.execute

_locks: list[FileLock] = []
"""References that keep the lock until the process ends."""


class LockFileError(ValueError):
    """dvc.lock is unreadable, and only the user can repair it."""


def prepare(repo: Repo, stages: list[Stage], params: Params, *, dry_run: bool) -> set[str]:
    """Check, lock and repair the working copy; return the names of the stages to run. Exit if this is not possible."""
    verify_objects(remove=not dry_run)
    try:
        require_usable(params, with_sources=False)
        acquire_workflow_lock()
        repair_lock_file(dry_run=dry_run)
        with params_for_dvc(params, dry_run=dry_run):
            planned = mark_stale_stages(repo, stages, dry_run=dry_run)
        due = [stage for stage in stages if stage.name in planned]
        require_writable_outputs(due)
        require_fitting_sources(params, due)
    except (OSError, ValueError) as error:
        exit_with(error)
    for stage in due:
        if files := list(find_leftovers(stage, stages)):
            more = f" and {len(files) - 1} more files" if files[1:] else ""
            sys.stderr.write(
                f"{stage.name} reads {files[0]}{more} that no stage makes now; `mdpipe clean` lists such files\n"
            )
    check_targets(params, stages)
    return planned


def require_fitting_sources(params: Params, due: list[Stage]) -> None:
    """Raise ValueError if the settings of a source that is to be read do not fit its files: others train meanwhile."""
    names = [stage.name.partition("@")[2] for stage in due if stage.name.startswith("download@")]
    if problems := list(unfit_sources(params, names)):
        raise ValueError("\n".join(problems))


def patch_snakemake(stages: list[Stage]) -> None:
    """Have Snakemake in this process end its jobs with it, show why a job failed, and leave outputs to DVC."""
    os.environ[ENGINE_PID] = str(os.getpid())  # Jobs end when the engine does.
    # What `show-failed-logs` prints: a log has thousands of lines of progress before the one that matters.
    snakemake.logging.show_logs = last_lines
    snakemake.logging.logger.addFilter(add_messages({stage.name: stage.description for stage in stages}))
    ignore_clock_skew()
    keep_outputs()


def acquire_workflow_lock() -> None:
    """Lock the working copy, so that only one Snakemake runs in it.

    The kernel releases the lock when the process ends, so Snakemake's own lock files are stale after a kill. Wait for
    the jobs of a killed engine, which end by themselves within a second (see job.py).

    Raises:
        BlockingIOError: Another Snakemake is running in this folder.
        ValueError: The state folders are read-only, or the disk is full.
    """
    if (free := shutil.disk_usage(Path.cwd()).free) < MIN_FREE_BYTES:
        raise ValueError(f"the disk is full: {free / 1e6:,.1f} MB free; make room, and run the same command again")
    require_writable([*state_folders(), ENGINE_LOCK, JOBS_LOCK, Path(".snakemake")])
    STATE.mkdir(exist_ok=True)
    lock = FileLock(ENGINE_LOCK, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        engine = ENGINE_LOCK.read_text().strip()
        raise BlockingIOError(
            f"another snakemake is running in this folder ({engine}); wait for it, or follow it in logs/"
        ) from None
    _locks.append(lock)
    ENGINE_LOCK.write_text(f"process {os.getpid()}\n")
    with JOBS_LOCK.open("w") as jobs:
        fcntl.flock(jobs, fcntl.LOCK_EX)
    for stale in Path(".snakemake/locks").glob("*.lock"):
        stale.unlink()
    # Snakemake marks interrupted jobs as incomplete, but `dvc repro` may have finished them since.
    for mark in Path(".snakemake/incomplete").rglob("*"):
        if mark.is_file():
            mark.unlink()


def open_repo(root: Path) -> Repo:
    """Open the repository with DVC.

    Raises:
        ValueError: It is not a repository of git or DVC, as in an unpacked archive, or HOME is not usable.
    """
    if problem := next(home_problems(), None):
        raise ValueError(problem)
    try:
        return Repo(str(root))
    except SCMError:
        raise ValueError(f"{root} is not a git repository, which DVC needs: run `git init` there") from None
    except NotDvcRepoError:
        raise ValueError(f"{root} has no folder .dvc: copy the hidden files, too, or run `dvc init` there") from None


def repair_lock_file(*, dry_run: bool) -> None:
    """Move away a dvc.lock that a kill truncated; DVC's run cache then restores all artifacts without running stages.

    Raises:
        LockFileError: It has merge conflicts, which the user must resolve, or it is truncated in a dry run.
    """
    if not LOCK_FILE.exists():
        return
    try:
        if content := load_yaml(str(LOCK_FILE)):
            COMPILED_LOCKFILE_SCHEMA(content)
            return
    except voluptuous.Invalid:
        pass  # It is truncated, and still valid YAML.
    except ParseError:
        if CONFLICT.search(LOCK_FILE.read_bytes()):
            raise LockFileError(
                f"{LOCK_FILE} has merge conflicts; resolve params.yaml, take either side of {LOCK_FILE}"
                f" (`git checkout --ours {LOCK_FILE}` or `--theirs`), and run snakemake, which restores or makes the"
                " artifacts of the other side"
            ) from None
    if dry_run:
        raise LockFileError(
            f"{LOCK_FILE} is cut short, as after a kill; without --dry-run, snakemake moves it away and restores"
            " every artifact from DVC's cache"
        )
    backup = STATE / f"{LOCK_FILE}.broken"
    LOCK_FILE.replace(backup)
    sys.stderr.write(
        f"{LOCK_FILE} was cut short, as by a kill; it is now {backup}, and artifacts are restored from DVC's cache\n"
    )


def mark_stale_stages(repo: Repo, stages: list[Stage], *, dry_run: bool) -> set[str]:
    """Request exactly the stages that DVC reports as stale, and return them with all their dependents.

    The stage `resolve` runs here, because DVC compares the resolved params; not in a dry run, which has written them.

    Raises:
        BlockingIOError: Another DVC process is running in this folder.
    """
    REQUESTS.mkdir(parents=True, exist_ok=True)
    try:
        for line in repair_rwlock(repo):
            sys.stderr.write(f"{line}\n")
        if not dry_run and repo.status(targets=[RESOLVE]):
            repo.reproduce(targets=[RESOLVE], single_item=True)
        stale = {name: changes for name, changes in _stale_stages(repo).items() if name != RESOLVE}
    except LockError as error:
        holders = ", ".join(lock_holders(repo))
        raise BlockingIOError(
            f"DVC is at work in this folder ({holders or error}); wait until it ends, then run the same command again"
        ) from None
    for stage in stages:
        request = request_file(stage.name)
        if keys := _changed_params(stale.get(stage.name, [])):
            sys.stderr.write(f"{stage.name} is stale because of params: {', '.join(keys)}\n")
        if stage.name in stale:
            request.write_text(uuid.uuid4().hex + "\n")
            _set_times_before(request.stat().st_mtime, stage.outputs)
        else:
            request.touch()
            os.utime(request, BEFORE_ALL_OUTPUTS)
    return with_dependents(set(stale), stages)


def _changed_params(changes: Iterable[Any]) -> list[str]:
    """Return the keys of params in the changes that DVC reports for a stage."""
    dependencies = [change.get("changed deps", {}) for change in changes if isinstance(change, dict)]
    return [key for changed in dependencies for keys in changed.values() if isinstance(keys, dict) for key in keys]


def _stale_stages(repo: Repo) -> dict[str, list[Any]]:
    """Return the stages that DVC reports as stale, each with the changes."""
    # Cached, because DVC parses the params once per stage, which takes half the time of `status`.
    param.load_path = cache(load_path)
    try:
        return dict(repo.status())
    finally:
        param.load_path = load_path


@contextmanager
def params_for_dvc(params: Params, *, dry_run: bool) -> Iterator[None]:
    """Write params.replicates.yaml, which DVC's templates read.

    A dry run also writes the resolved params, as the stage `resolve` would, and puts back what was there after the
    block.
    """
    files = (REPLICATES_FILE, RESOLVED_PARAMS_FILE) if dry_run else ()
    before = {file: file.read_bytes() if file.exists() else None for file in files}
    try:
        write_replicates(params)
        if dry_run:
            write_if_changed(RESOLVED_PARAMS_FILE, dump_params(params))
        yield
    finally:
        for file, content in before.items():
            if content is None:
                file.unlink(missing_ok=True)
            elif file.read_bytes() != content:
                atomic_write(file, content)


def require_writable_outputs(stages: Iterable[Stage]) -> None:
    """Raise ValueError if the outputs or logs of a stage, or the files that DVC writes, are read-only."""
    if outputs := [Path(output).parent for stage in stages for output in stage.outputs]:
        require_writable([*outputs, Path("logs"), Path("benchmarks"), *dvc_targets()])


def request_file(stage: str) -> Path:
    """Return the file whose change makes Snakemake run a stage."""
    return REQUESTS / stage


def exit_with(error: Exception) -> NoReturn:
    """Exit with the message only: Snakemake would print the exception's type and location before it."""
    sys.exit(f"error: {printable_lines(without_secrets(str(error)))}")


def check_targets(params: Params, stages: list[Stage]) -> None:
    """Have Snakemake in this process check its targets before it runs or dry-runs them.

    It skips a stage with a missing input if the outputs are there, although DVC calls the stage stale.
    """

    def execute(self: Workflow, *args: Any, **kwargs: Any) -> None:
        targets = self.dag_settings.targets
        try:
            require_dependencies(params, needed_stages(targets, stages), stages)
        except ValueError as error:
            exit_with(error)
        try:
            _execute(self, *args, **kwargs)
        except MissingRuleException:
            if (unknown := next(unknown_targets(targets, stages), None)) is None:
                raise
            names = (*(stage.name for stage in stages), *makers_of(stages))
            hint = did_you_mean(unknown, names)
            exit_with(ValueError(f"no stage makes {unknown!r}{hint}; `mdpipe check` lists the stages"))

    Workflow.execute = execute


def _set_times_before(requested: float, outputs: Iterable[str]) -> None:
    """Make outputs with a time in the future, as after the clock was set back, older than the request.

    Otherwise Snakemake would never run their stage again.
    """
    for output in outputs:
        for path in (Path(output), Path(output, FOLDER_TIMESTAMP)):
            if path.exists() and path.stat().st_mtime >= requested:
                os.utime(path, (requested - 1, requested - 1))


def add_messages(descriptions: Mapping[str, str]) -> Callable[[logging.LogRecord], bool]:
    """Return a filter of Snakemake's log that gives failed jobs the message of their rule; Snakemake prints `None`."""

    def add(record: logging.LogRecord) -> bool:
        if getattr(record, "event", None) is LogEvent.JOB_ERROR and record.rule_msg is None:  # type: ignore[attr-defined]
            record.rule_msg = descriptions.get(record.rule_name)  # type: ignore[attr-defined]
        return True

    return add


def last_lines(logs: Iterable[str]) -> Iterator[str]:
    """Yield the last lines of each log, after a line with its path; only the last state of a progress bar."""
    for log in logs:
        path = Path(log)
        if not path.exists():
            yield f"{log} was not written: the job did not start"
            continue
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_BYTES))
            text = file.read().decode("utf-8", errors="replace")
        lines = [line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")]
        shown = [line[:LOG_WIDTH] for line in lines if line.strip()][-LOG_LINES:]
        yield f"The end of {log}:"
        yield from (f"    {line}" for line in shown)
