"""All that a source gives at once, and the size of its parts at will."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mdpipe.data.raw.material import Document, Pictures
from mdpipe.data.raw.writing import FOUND, Part
from mdpipe.data.sources import files, hub, lines, source_parts, table_files, text_files

ROWS = {"empty_rows": "error", "detokenizer": None}
SETTINGS: dict[str, dict[str, Any]] = {
    "arrays": {"field": "x", "labels": None},
    "csv": {
        "pattern": "*.csv",
        "columns": ["text"],
        "delimiter": ",",
        "header": True,
        "encoding": "utf-8",
        **ROWS,
    },
    "hub": {"config": None, "splits": ["train"], "column": "text", "revision": None, **ROWS},
    "hub_images": {
        "config": None,
        "splits": ["train"],
        "image": "image",
        "label": None,
        "revision": None,
        "mode": None,
        "resize": None,
    },
    "idx": {"images": "images", "labels": None},
    "image_folder": {"pattern": "*.png", "labels": None, "mode": None, "resize": None},
    "image_table": {"pattern": "*.parquet", "image": "image", "label": None, "mode": None, "resize": None},
    "image_tar": {"pattern": "*.tar", "mode": None, "resize": None},
    "jsonl": {"pattern": "*.jsonl", "field": "text", "broken_utf8": "error", **ROWS},
    "planar_arrays": {"pattern": "*.npz", "field": "data", "shape": (3, 3, 2), "labels": None},
    "table": {"pattern": "*.parquet", "column": "text", **ROWS},
    "text_files": {"pattern": "*.txt", "documents": "file", "broken_utf8": "error", **ROWS},
    "url": {"sha256": None, "member": None, "field": None, "documents": "file", "broken_utf8": "error", **ROWS},
}
"""Of every kind, plain ones that a test can change."""


def parts_of(kind: str, path: Path, **settings: Any) -> Sequence[Part]:
    """The parts; `path` has the files of a local kind and takes the downloads of a fetched one."""
    return source_parts(kind, path, path, **{**SETTINGS.get(kind, {}), **settings})


def documents_of(kind: str, path: Path, **settings: Any) -> list[Document]:
    """The documents of all parts."""
    return [document for part in parts_of(kind, path, **settings) for document in part.read(Counter())]


def texts_of(kind: str, path: Path, **settings: Any) -> list[str]:
    """What the documents say."""
    return [document.text for document in documents_of(kind, path, **settings)]


def counts_of(kind: str, path: Path, **settings: Any) -> dict[str, int]:
    """What was left out or replaced."""
    counts = Counter[str]()
    for part in parts_of(kind, path, **settings):
        list(part.read(counts))
    return {what: count for what, count in counts.items() if count and what not in FOUND}


def pictures_of(kind: str, path: Path, **settings: Any) -> Pictures:
    """The pictures of all parts, one after the other."""
    return joined([batch for part in parts_of(kind, path, **settings) for batch in part.read(Counter())])


def joined(batches: Sequence[Pictures]) -> Pictures:
    """Batches as one."""

    def together(field: str) -> Any:
        arrays = [getattr(batch, field) for batch in batches]
        return None if arrays[0] is None else np.concatenate(arrays)

    first = batches[0]
    return Pictures(together("images"), together("groups"), first.maximum, together("labels"), first.class_names)


@contextmanager
def part_bytes(size: int) -> Iterator[None]:
    """Parts of about so many bytes."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (files, hub, lines, table_files, text_files):
            patch.setattr(module, "PART_BYTES", size)
        yield
