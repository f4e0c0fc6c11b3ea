"""A state that is spread over processes, as a folder that each of them writes its part to.

torch.distributed.checkpoint writes and reads it, in safetensors, which a reader need not trust; its own format is a
pickle. training.json says what the folder holds and has a checksum of each file.
"""

import json
import os
import shutil
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from mdpipe.training.world import World

DESCRIPTION = "training.json"


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


def read_shards(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors, put together on the CPU, and the metadata; without other processes, however many wrote it.

    Raises:
        OSError: a file is missing.
        ValueError: a file is not as it was written.
    """
    metadata = json.loads((folder / DESCRIPTION).read_text())
    for name, checksum in metadata["checksums"].items():
        if zlib.crc32((folder / name).read_bytes()) != checksum:
            raise ValueError(f"{name} does not have the checksum {checksum}")
    reader = HuggingFaceStorageReader(str(folder))
    described = reader.read_metadata().state_dict_metadata
    tensors = {
        name: torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in described.items()
        if isinstance(entry, TensorStorageMetadata)
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # It is what we want.
        load(tensors, storage_reader=reader, no_dist=True)
    return tensors, metadata


def _flushed_checksum(file: Path) -> int:
    with file.open("rb") as content:
        checksum = zlib.crc32(content.read())
        os.fsync(content.fileno())
    return checksum
