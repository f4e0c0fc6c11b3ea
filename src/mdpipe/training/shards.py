"""A state that is spread over processes, as a folder that each of them writes its part to, and reads its part from.

torch.distributed.checkpoint writes and reads it, in safetensors, which a reader need not trust; its own format is a
pickle. training.json says what the folder holds and has a checksum of each file.
"""

import json
import os
import shutil
import warnings
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor

from mdpipe.training.world import World

DESCRIPTION = "training.json"

BLOCK = 2**20
"""Bytes of a file that are held at once for its checksum: enough for a disk to be read at its full speed."""


def write_shards(folder: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, object], world: World) -> None:
    """Write the folder, anew if it exists; all processes call this, and the files are on the disk when it returns."""
    if world.leads and folder.exists():
        shutil.rmtree(folder)
    world.wait_for_all()
    state = {name: tensor.detach() for name, tensor in tensors.items()}
    save(state, storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True))
    if world.leads:
        checksums = {file.name: _flushed_checksum(file) for file in sorted(folder.iterdir())}
        (folder / DESCRIPTION).write_text(json.dumps({**metadata, "checksums": checksums}, sort_keys=True))
        _flushed_checksum(folder / DESCRIPTION)
    world.wait_for_all()


def read_description(folder: Path, world: World) -> dict[str, Any]:
    """The metadata; each process makes sure of its share of the files, so that all of them do of all.

    Raises:
        OSError: a file of its share, or the description, is missing.
        ValueError: one is not as it was written.
    """
    metadata: dict[str, Any] = json.loads((folder / DESCRIPTION).read_text())
    for name, checksum in sorted(metadata["checksums"].items())[world.rank :: world.size]:
        with (folder / name).open("rb") as content:
            if _checksum(content) != checksum:
                raise ValueError(f"{name} does not have the checksum {checksum}")
    return metadata


def read_shards(folder: Path, like: Callable[[str], Tensor]) -> dict[str, Tensor]:
    """The tensors, however many processes wrote them: no other process is waited for.

    Where `like`, of a tensor's name, is spread over processes, this one reads its own part; else all, into the CPU.
    """
    reader = HuggingFaceStorageReader(str(folder))
    described = reader.read_metadata().state_dict_metadata
    tensors = {
        name: _room(entry, like(name)) for name, entry in described.items() if isinstance(entry, TensorStorageMetadata)
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # It is what we want.
        load(tensors, storage_reader=reader, no_dist=True)
    return tensors


def _room(entry: TensorStorageMetadata, like: Tensor) -> Tensor:
    # A number that belongs to a spread parameter, such as AdamW's count of steps, is not spread itself.
    if isinstance(like, DTensor) and like.shape == entry.size:
        return torch.empty_like(like, dtype=entry.properties.dtype, requires_grad=False)
    return torch.empty(entry.size, dtype=entry.properties.dtype)


def _flushed_checksum(file: Path) -> int:
    with file.open("rb") as content:
        checksum = _checksum(content)
        os.fsync(content.fileno())
    return checksum


def _checksum(content: BinaryIO) -> int:
    checksum = 0
    while block := content.read(BLOCK):
        checksum = zlib.crc32(block, checksum)
    return checksum
