"""Work done piece by piece, on several cores: finished pieces survive a kill and are not made again.

A piece is a folder of its own that appears whole or not at all. What is in it depends on the piece alone, so the number
of processes changes nothing but the time.
"""

import errno
import multiprocessing
import os
import shutil
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mdpipe.data.artifacts.aside import folder_aside
from mdpipe.data.artifacts.stable_json import read_json, write_json
from mdpipe.data.work.progress import Progress

Item = TypeVar("Item")
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
SUMMARY = "piece.json"
WORKERS = "MDPIPE_WORKERS"
"""Environment variable: how many processes a stage that prepares data may use; by default one a core."""


@dataclass(frozen=True)
class Piece:
    """A finished piece."""

    folder: Path
    summary: dict[str, Any]


def piecewise(
    work: Callable[[Item, Path], dict[str, Any]], items: Sequence[Item], scratch: Path, progress: Progress
) -> list[Piece]:
    """Make every item's piece in a folder of `scratch` that is not there yet.

    Args:
        work: a function of a module, which fills the folder that it is given and returns a summary for JSON. A key
            "bytes" of it is what progress counts.
        items: what the pieces are made of; they travel to other processes.
        scratch: where the pieces are kept until somebody removes it.
        progress: told of every piece.

    Raises:
        ValueError: a piece could not be made, the disk is full, or a process was killed; the pieces that were made
            stay, of others nothing does.
    """
    folders = [scratch / f"{index:05d}" for index in range(len(items))]
    missing = [index for index, folder in enumerate(folders) if not folder.exists()]
    for folder in folders:
        if folder.exists():
            progress.advance(_summary(folder).get("bytes", 0), made_before=True)
    with _mapper(min(workers(), len(missing))) as apply:
        try:
            for made in apply(_make, [(work, items[index], folders[index]) for index in missing]):
                if isinstance(made, ValueError):
                    raise made
                progress.advance(made.get("bytes", 0))
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            raise ValueError(
                f"{progress.what}: the disk of {scratch} is full, and what was half done is removed from it; make room"
                " and run the stage again, which goes on with what is finished"
            ) from None
    return [Piece(folder, _summary(folder)) for folder in folders]


@contextmanager
def scratch_beside(directory: Path) -> Iterator[Path]:
    """Where pieces of `directory` are kept until it is made; nothing of it stays, not even of a killed process."""
    scratch = directory.with_name(f".{directory.name}.scratch")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def workers() -> int:
    """How many processes may work at once.

    Raises:
        ValueError: the environment variable is no positive number.
    """
    stated = os.environ.get(WORKERS)
    if stated is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not stated.isdecimal() or int(stated) < 1:
        raise ValueError(f"the environment variable {WORKERS} is {stated!r}; it must be a number from 1 on")
    return int(stated)


@contextmanager
def _mapper(processes: int) -> Iterator[Callable[..., Iterator[Any]]]:
    if processes <= 1:
        yield map
        return
    # Spawned, not forked: the parent may hold threads of numpy, arrow or a progress bar.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_end_with_parent)
    try:
        yield pool.map
    except BrokenProcessPool:
        raise ValueError(
            f"a process was killed, as happens when memory runs out; set the environment variable {WORKERS} to fewer"
            f" than {processes} and run the stage again: what is finished is kept"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _make(task: tuple[Callable[[Any, Path], dict[str, Any]], Any, Path]) -> dict[str, Any] | ValueError:
    """The summary, or what is wrong with the material.

    That is not raised here: an exception from another process has lost the place where it was raised, by which the
    command line tells bad input from a bug.
    """
    work, item, target = task
    try:
        with folder_aside(target) as folder:
            summary = work(item, folder)
            write_json(folder / SUMMARY, summary)
    except ValueError as error:
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        if frame.f_globals["__name__"].startswith("mdpipe."):
            return error
        raise
    return summary


def _summary(folder: Path) -> dict[str, Any]:
    return read_json(folder / SUMMARY, f"remove {folder.parent} and run the stage again")


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for ever for its next piece."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
