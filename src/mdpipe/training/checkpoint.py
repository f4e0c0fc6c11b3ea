"""Checkpoints: the whole state of a training run, written so that it survives kill -9 at any moment.

    step-000000300.safetensors      every process holds the full state
    step-000000300.sharded/         sharded state (FSDP2), one file per process, from torch.distributed.checkpoint

A checkpoint is written under a temporary name, flushed to disk and renamed; then the oldest are removed. It records the
step, the run's hash and checksums. The folder also holds the lock that keeps a second process from training in it.
"""

import json
import logging
import mmap
import os
import re
import shutil
import socket
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mdpipe.data.artifacts.files import DiskFullError, explain_disk_full
from mdpipe.training.distributed import World, is_sharded

FILE, FOLDER = ".safetensors", ".sharded"
NAME = re.compile(r"step-(\d+)(\.safetensors|\.sharded)")
STEP_DIGITS = 9
"""Digits of the step in a name, so that names sort in the order of steps."""

METADATA_KEY = "training"
# One key only: safetensors writes several in an order that changes from file to file.
METADATA_FILE = "training.json"
"""Metadata of a sharded checkpoint, with a checksum for each of its files."""

LOCK_FILE = "lock"
FINISHED_FILE = "finished"

logger = logging.getLogger(__name__)

Template = Callable[[str], Tensor]
"""Returns, for the name of a checkpoint's tensor, a tensor of the run that is sharded as that one should be."""


class RunHashMismatchError(ValueError):
    """A checkpoint belongs to a run with other params, data or code."""


class CorruptCheckpointError(ValueError):
    """A checkpoint is truncated, or its bytes have changed."""


@dataclass(frozen=True)
class Checkpoint:
    """The state after `step` steps: tensors by name, when read either full on the CPU or sharded as in the run."""

    step: int
    tensors: Mapping[str, Tensor]


def save_checkpoint(checkpoint_dir: Path, checkpoint: Checkpoint, run_hash: str, keep: int, world: World) -> None:
    """Save a checkpoint and keep the newest `keep`. All processes call this.

    Raises:
        DiskFullError: The disk is full; existing checkpoints stay.
    """
    end = FOLDER if any(map(is_sharded, checkpoint.tensors.values())) else FILE
    path = checkpoint_dir / f"step-{checkpoint.step:0{STEP_DIGITS}d}{end}"
    partial = path.with_name(f"{path.name}.partial")
    metadata = {"step": checkpoint.step, "run_hash": run_hash}
    try:
        with explain_disk_full(path):
            if end == FOLDER:
                _write_sharded(partial, checkpoint.tensors, metadata, world)
            elif world.is_main_process:
                _write_file(partial, checkpoint.tensors, metadata)
    except DiskFullError:
        _remove(partial)
        raise
    if world.is_main_process:
        if path.is_dir():
            shutil.rmtree(path)  # A folder cannot be renamed to an existing one.
        partial.replace(path)
        fsync(checkpoint_dir)
        for old in _newest_first(checkpoint_dir)[keep:]:
            _remove(old)
    world.barrier()


def load_checkpoint(checkpoint_dir: Path, run_hash: str, template: Template, world: World) -> Checkpoint | None:
    """Return the newest readable checkpoint of a folder, as `read_checkpoint` does, or None. All processes call this.

    Raises:
        RunHashMismatchError: It belongs to a run with another hash.
    """
    for path in _newest_first(checkpoint_dir):
        try:
            return read_checkpoint(path, run_hash, template, world)
        except CorruptCheckpointError as error:
            if world.is_main_process:
                logger.warning("%s; it is removed, and the previous one is used", error)
                _remove(path)  # Otherwise it would count as one of the kept ones and push out a good one.
    return None


def read_checkpoint(path: Path, run_hash: str, template: Template, world: World) -> Checkpoint:
    """Read one checkpoint, a file or a folder. All processes call this and raise the same errors.

    Raises:
        RunHashMismatchError: It belongs to a run with another hash.
        CorruptCheckpointError: It is truncated or its bytes have changed.
    """
    problem = None
    tensors: Mapping[str, Tensor] = {}
    try:
        if path.suffix == FOLDER:
            metadata = _verify_sharded(path, world)
        else:
            tensors, metadata = _read_file(path)
        step, found_hash = metadata["step"], metadata["run_hash"]
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        problem = error
    if any(world.all_reduce_max(int(problem is not None))):
        raise CorruptCheckpointError(f"{path} cannot be read ({problem or 'by another process'})") from problem
    if found_hash != run_hash:
        raise RunHashMismatchError(
            f"{path} belongs to a run with the hash {found_hash}, this one has {run_hash}: its params, data"
            f" or code differ. Remove the folder {path.parent} to train from the start."
        )
    return Checkpoint(step, _read_sharded(path, template) if path.suffix == FOLDER else tensors)


def saved_steps(checkpoint_dir: Path) -> list[int]:
    """Return the steps of the folder's checkpoints, newest first; empty if there is no folder."""
    return [int(path.name[len("step-") :][:STEP_DIGITS]) for path in _newest_first(checkpoint_dir)]


def fsync(path: Path) -> None:
    """Flush a file, or a folder's entries, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def lock_checkpoint_dir(checkpoint_dir: Path) -> Iterator[None]:
    """Create and lock the folder within the block, waiting for any other process that trains in it.

    The kernel releases the lock when its process ends, kill -9 included.
    """
    path = checkpoint_dir / LOCK_FILE
    lock = FileLock(path)
    while not lock.is_locked:
        checkpoint_dir.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # The other process may discard the folder.
            try:
                lock.acquire(blocking=False)
            except Timeout:
                owner = path.read_text().strip() or "another process"
                logger.info("%s is training in %s: waiting until it ends", owner, checkpoint_dir)
                lock.acquire()
    try:
        path.write_text(f"process {os.getpid()} on {socket.gethostname()}\n")
        yield
    finally:
        lock.release()


def mark_finished(checkpoint_dir: Path) -> None:
    """Mark the folder's run as finished, so that its checkpoints may be discarded."""
    (checkpoint_dir / FINISHED_FILE).touch()


def discard_finished(checkpoint_dir: Path) -> None:
    """Remove a folder that is marked as finished, unless a process trains in it."""
    if not (checkpoint_dir / FINISHED_FILE).exists():
        return
    with suppress(Timeout), FileLock(checkpoint_dir / LOCK_FILE, blocking=False):
        # Rename first: a waiting process might otherwise create a new lock in the half-removed folder.
        discarded = checkpoint_dir.with_name(f"{checkpoint_dir.name}.discarded")
        shutil.rmtree(discarded, ignore_errors=True)  # An earlier process may have left it when it was killed.
        shutil.rmtree(checkpoint_dir.rename(discarded))


def _write_file(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, object]) -> None:
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with_checksum = {**metadata, "checksum": _checksum_tensors(on_cpu)}
    save_file(on_cpu, path, metadata={METADATA_KEY: json.dumps(with_checksum, sort_keys=True)})
    fsync(path)


def _read_file(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with safe_open(path, framework="pt") as file:
        metadata = json.loads(file.metadata()[METADATA_KEY])
        # Clone, because the file's memory is aligned differently from memory that torch allocates.
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (not a mapping)
    if metadata["checksum"] != _checksum_tensors(tensors):
        raise ValueError(f"its tensors do not have the checksum {metadata['checksum']}")
    return tensors, metadata


def _write_sharded(folder: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, object], world: World) -> None:
    """Write the folder, replacing an existing one; all processes call this, and the files are on disk afterwards.

    The format is safetensors: torch.distributed.checkpoint's own is a pickle, which a reader would have to trust.
    """
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    if world.is_main_process and folder.exists():
        shutil.rmtree(folder)
    world.barrier()
    state_dict = {name: tensor.detach() for name, tensor in tensors.items()}
    save(state_dict, storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True))
    if world.is_main_process:
        files = sorted(folder.iterdir())
        checksums = {file.name: _checksum_file(file) for file in files}
        metadata_file = folder / METADATA_FILE
        metadata_file.write_text(json.dumps({**metadata, "checksums": checksums}, sort_keys=True))
        for file in (*files, metadata_file):
            fsync(file)
    world.barrier()


def _verify_sharded(folder: Path, world: World) -> dict[str, Any]:
    """Return the metadata; each process verifies the checksums of some of the files, together all of them."""
    metadata: dict[str, Any] = json.loads((folder / METADATA_FILE).read_text())
    for name, checksum in sorted(metadata["checksums"].items())[world.rank :: world.size]:
        if _checksum_file(folder / name) != checksum:
            raise ValueError(f"{name} does not have the checksum {checksum}")
    return metadata


def _read_sharded(folder: Path, template: Template) -> dict[str, Tensor]:
    """Read the tensors without communication, whatever the number of processes that wrote them.

    This process reads only its own shard of a tensor whose template is sharded, and all others in full, to the CPU.
    """
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata
    from torch.distributed.checkpoint.state_dict_loader import load

    def allocate(stored: TensorStorageMetadata, like: Tensor) -> Tensor:
        # A scalar of a sharded parameter's state, such as AdamW's step, is not sharded itself.
        if is_sharded(like) and like.shape == stored.size:
            return torch.empty_like(like, dtype=stored.properties.dtype, requires_grad=False)
        return torch.empty(stored.size, dtype=stored.properties.dtype)

    reader = HuggingFaceStorageReader(str(folder))
    entries = reader.read_metadata().state_dict_metadata.items()
    tensors = {
        name: allocate(entry, template(name)) for name, entry in entries if isinstance(entry, TensorStorageMetadata)
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # On purpose.
        load(tensors, storage_reader=reader, no_dist=True)
    return tensors


def _checksum_tensors(tensors: Mapping[str, Tensor]) -> int:
    checksum = 0
    for _, tensor in sorted(tensors.items()):
        checksum = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, checksum)
    return checksum


def _checksum_file(path: Path) -> int:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return zlib.crc32(content)


def _newest_first(checkpoint_dir: Path) -> list[Path]:
    # A step may have a file and a folder, if the run was resumed by another number of processes.
    return sorted((path for path in checkpoint_dir.glob("step-*") if NAME.fullmatch(path.name)), reverse=True)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)  # Several processes may do this at once.
    else:
        path.unlink(missing_ok=True)
