"""Read everything that a source contains, with shards of any size."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mdpipe.data.raw import Document, ImageBatch
from mdpipe.data.sources import files, open_source, tables, text
from mdpipe.data.sources.writer import FOUND, SourceShard
from mdpipe.params.sources import Source

SETTINGS: dict[str, dict[str, Any]] = {
    "csv": {"pattern": "*.csv"},
    "image_folder": {"pattern": "*.png"},
    "image_tar": {"pattern": "*.tar"},
    "jsonl": {"pattern": "*.jsonl"},
    "mnist_idx": {"images": "images"},
    "npy": {"field": "x"},
    "npz_flat": {"pattern": "*.npz", "shape": (3, 3, 2)},
    "parquet": {"pattern": "*.parquet"},
    "parquet_images": {"pattern": "*.parquet"},
    "text": {"pattern": "*.txt"},
}
"""Settings of some kinds that a test can change."""


def shards_of(kind: str, path: Path, **settings: Any) -> Sequence[SourceShard]:
    """Open a source; `path` has the files of a local kind, and takes the downloads of the others."""
    given = {"kind": kind, "path": str(path), **SETTINGS.get(kind, {}), **settings}
    return open_source(Source.parse(given), path)


def documents_of(kind: str, path: Path, **settings: Any) -> list[Document]:
    """Read the documents of all shards."""
    return [document for shard in shards_of(kind, path, **settings) for document in shard.read(Counter())]


def texts_of(kind: str, path: Path, **settings: Any) -> list[str]:
    """Read the texts of all shards."""
    return [document.text for document in documents_of(kind, path, **settings)]


def counts_of(kind: str, path: Path, **settings: Any) -> dict[str, int]:
    """Count what is left out or replaced."""
    counts = Counter[str]()
    for shard in shards_of(kind, path, **settings):
        list(shard.read(counts))
    return {what: count for what, count in counts.items() if count and what not in FOUND}


def images_of(kind: str, path: Path, **settings: Any) -> ImageBatch:
    """Read the images of all shards, one after the other."""
    return concatenate_batches(
        [batch for shard in shards_of(kind, path, **settings) for batch in shard.read(Counter())]
    )


def concatenate_batches(batches: Sequence[ImageBatch]) -> ImageBatch:
    """Concatenate batches."""

    def together(field: str) -> Any:
        arrays = [getattr(batch, field) for batch in batches]
        return None if arrays[0] is None else np.concatenate(arrays)

    first = batches[0]
    return ImageBatch(together("images"), together("groups"), first.maximum, together("labels"), first.class_names)


@contextmanager
def shard_bytes(size: int) -> Iterator[None]:
    """Read in shards of about this many bytes."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (files, tables, text):
            patch.setattr(module, "READ_BYTES", size)
        yield
