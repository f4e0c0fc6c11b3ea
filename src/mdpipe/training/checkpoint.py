"""Checkpoints: the whole state of a training run in one safetensors file that survives kill -9 at any moment.

The file is written aside, flushed to the disk and renamed; the one before it is kept as `.previous`. Its only metadata
key holds the step, the fingerprint of all that the run depends on, and a checksum of the tensors.
"""

import json
import logging
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

FILE = "checkpoint.safetensors"
METADATA_KEY = "training"
# One key only: safetensors writes several in an order that changes from file to file.

log = logging.getLogger(__name__)


class FingerprintMismatchError(ValueError):
    """A checkpoint belongs to a run with other params, data or code."""


class CorruptCheckpointError(ValueError):
    """A checkpoint file is truncated, or its bytes are not those that were written."""


@dataclass(frozen=True)
class Checkpoint:
    """The state after `step` steps; tensors by name, on the CPU."""

    step: int
    tensors: dict[str, Tensor]


def save_checkpoint(scratch: Path, checkpoint: Checkpoint, fingerprint: str) -> None:
    """Make this the newest checkpoint of the folder; the newest so far becomes the previous one."""
    newest = scratch / FILE
    partial = newest.with_suffix(".partial")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
    metadata = {"step": checkpoint.step, "fingerprint": fingerprint, "checksum": _checksum(tensors)}
    save_file(tensors, partial, metadata={METADATA_KEY: json.dumps(metadata, sort_keys=True)})
    _flush(partial)
    if newest.exists():
        newest.replace(_previous(scratch))
    partial.replace(newest)
    _flush(scratch)


def load_checkpoint(scratch: Path, fingerprint: str) -> Checkpoint | None:
    """The newest checkpoint of the folder that can be read; None where there is none.

    Raises:
        FingerprintMismatchError: it was made by a run with another fingerprint.
    """
    for path in (scratch / FILE, _previous(scratch)):
        if not path.exists():
            continue
        try:
            return read_checkpoint(path, fingerprint)
        except CorruptCheckpointError as error:
            log.warning("%s; it is removed, and the one before it is used", error)
            path.unlink()  # Otherwise it would become the previous one and push out the good one that is there.
    return None


def read_checkpoint(path: Path, fingerprint: str) -> Checkpoint:
    """Read one checkpoint file whole.

    Raises:
        FingerprintMismatchError: it was made by a run with another fingerprint.
        CorruptCheckpointError: it is truncated or its bytes have changed.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads(file.metadata()[METADATA_KEY])
            # A copy, since the file's own memory is aligned otherwise than that of a tensor torch makes.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (not a mapping)
        step, written_by, checksum = metadata["step"], metadata["fingerprint"], metadata["checksum"]
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CorruptCheckpointError(f"{path} cannot be read ({error})") from error
    if checksum != _checksum(tensors):
        raise CorruptCheckpointError(f"{path} is corrupt: its tensors do not have the checksum {checksum}")
    if written_by != fingerprint:
        raise FingerprintMismatchError(
            f"{path} belongs to a run with the fingerprint {written_by}, this one has {fingerprint}: its params, data"
            f" or code differ. Remove the folder {path.parent} to train from the start."
        )
    return Checkpoint(step, tensors)


def _previous(scratch: Path) -> Path:
    return scratch / f"{FILE}.previous"


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    checksum = 0
    for _, tensor in sorted(tensors.items()):
        checksum = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, checksum)
    return checksum


def _flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
