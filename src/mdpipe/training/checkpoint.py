"""Checkpoints: the whole state of a training run, written so that it survives kill -9 at any moment.

    step-000000300.safetensors      of a run whose processes all hold the whole state
    step-000000300.sharded/         of one that is spread over its processes: a file of each, see `shards.py`

Each is written aside, flushed to the disk and renamed; then the oldest are removed. It holds the step, the fingerprint
of all that the run depends on, and a checksum.
"""

import json
import logging
import os
import re
import shutil
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mdpipe.data.artifacts.room import DiskFullError, needs_room
from mdpipe.training.parallel import is_spread
from mdpipe.training.shards import read_description, read_shards, write_shards
from mdpipe.training.world import World

FILE, FOLDER = ".safetensors", ".sharded"
NAME = re.compile(r"step-(\d+)(\.safetensors|\.sharded)")
DIGITS = 9
"""Of the step in a name, so that names sort as steps do."""

METADATA_KEY = "training"
# One key only: safetensors writes several in an order that changes from file to file.

log = logging.getLogger(__name__)


class FingerprintMismatchError(ValueError):
    """A checkpoint belongs to a run with other params, data or code."""


class CorruptCheckpointError(ValueError):
    """A checkpoint is truncated, or its bytes are not those that were written."""


@dataclass(frozen=True)
class Checkpoint:
    """The state after `step` steps: tensors by name, which once read are whole on the CPU, or spread as in the run."""

    step: int
    tensors: Mapping[str, Tensor]


def save_checkpoint(scratch: Path, checkpoint: Checkpoint, fingerprint: str, keep: int, world: World) -> None:
    """Add this checkpoint to the folder and leave the newest `keep` of them. All processes of the run call this.

    Raises:
        DiskFullError: there is no room for it; those that are there stay.
    """
    place = scratch / f"step-{checkpoint.step:0{DIGITS}d}{FOLDER if is_spread(checkpoint.tensors.values()) else FILE}"
    partial = place.with_name(f"{place.name}.partial")
    metadata = {"step": checkpoint.step, "fingerprint": fingerprint}
    try:
        with needs_room(place):
            if place.suffix == FOLDER:
                write_shards(partial, checkpoint.tensors, metadata, world)
            elif world.leads:
                _write_file(partial, checkpoint.tensors, metadata)
    except DiskFullError:
        _remove(partial)
        raise
    if world.leads:
        if place.is_dir():
            shutil.rmtree(place)  # A folder cannot be renamed to one that is there.
        partial.replace(place)
        flush(scratch)
        for old in _newest_first(scratch)[keep:]:
            _remove(old)
    world.wait_for_all()


def load_checkpoint(scratch: Path, fingerprint: str, like: Callable[[str], Tensor], world: World) -> Checkpoint | None:
    """The newest checkpoint of the folder that can be read; None where there is none. All processes call this.

    Args:
        scratch: the folder.
        fingerprint: of the run.
        like: what the run has in the place of a checkpoint's tensor: read ones may be spread as it is.
        world: the processes of the run.

    Raises:
        FingerprintMismatchError: it was made by a run with another fingerprint.
    """
    for place in _newest_first(scratch):
        try:
            return read_checkpoint(place, fingerprint, like, world)
        except CorruptCheckpointError as error:
            if world.leads:
                log.warning("%s; it is removed, and the one before it is used", error)
                _remove(place)  # Otherwise it would count as one of those that are kept, and push out a good one.
    return None


def read_checkpoint(place: Path, fingerprint: str, like: Callable[[str], Tensor], world: World) -> Checkpoint:
    """Read one checkpoint; arguments as in `load_checkpoint`. All processes call this, and raise the same errors.

    Raises:
        FingerprintMismatchError: it was made by a run with another fingerprint.
        CorruptCheckpointError: it is truncated or its bytes have changed.
    """
    problem = None
    tensors: Mapping[str, Tensor] = {}
    try:
        if place.suffix == FOLDER:
            metadata = read_description(place, world)
        else:
            tensors, metadata = _read_file(place)
        step, written_by = metadata["step"], metadata["fingerprint"]
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        problem = error
    if any(world.largest(int(problem is not None))):
        raise CorruptCheckpointError(f"{place} cannot be read ({problem or 'by another process'})") from problem
    if written_by != fingerprint:
        raise FingerprintMismatchError(
            f"{place} belongs to a run with the fingerprint {written_by}, this one has {fingerprint}: its params, data"
            f" or code differ. Remove the folder {place.parent} to train from the start."
        )
    return Checkpoint(step, read_shards(place, like) if place.suffix == FOLDER else tensors)


def saved_steps(scratch: Path) -> list[int]:
    """Return the steps of the folder's checkpoints, the newest first; none where there is no folder."""
    return [int(place.name.split(".")[0].removeprefix("step-")) for place in _newest_first(scratch)]


def flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_file(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, object]) -> None:
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    signed = {**metadata, "checksum": _checksum(held)}
    save_file(held, path, metadata={METADATA_KEY: json.dumps(signed, sort_keys=True)})
    flush(path)


def _read_file(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with safe_open(path, framework="pt") as file:
        metadata = json.loads(file.metadata()[METADATA_KEY])
        # A copy, since the file's own memory is aligned otherwise than that of a tensor torch makes.
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (not a mapping)
    if metadata["checksum"] != _checksum(tensors):
        raise ValueError(f"its tensors do not have the checksum {metadata['checksum']}")
    return tensors, metadata


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    checksum = 0
    for _, tensor in sorted(tensors.items()):
        checksum = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, checksum)
    return checksum


def _newest_first(scratch: Path) -> list[Path]:
    # Of one step there may be a file and a folder, where a run went on from it among other processes.
    return sorted((path for path in scratch.glob("step-*") if NAME.fullmatch(path.name)), reverse=True)


def _remove(place: Path) -> None:
    if place.is_dir():
        shutil.rmtree(place, ignore_errors=True)  # Several processes may do this at once.
    else:
        place.unlink(missing_ok=True)
