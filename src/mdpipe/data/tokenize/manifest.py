"""The manifest of an encoded dataset: its origin and what is in each split, as JSON and as a table.

manifest.json      source, tokenizer and tokens per example, and under "splits" for each split: documents or images,
                   tokens, bytes, characters, examples, unknown tokens, longest document, histogram of lengths (bin k:
                   2^k to 2^(k+1) - 1 tokens), content hash, duplicates; for labeled images the number of classes that
                   occur; for validation and test text the number of 50-character windows that the contamination search
                   looked for, and the fraction found. The parts of a document that comes in several have their own
                   lengths.
manifest.parquet   the same, one row per split
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdpipe.data.artifacts.files import write_json
from mdpipe.data.parallel import ShardResult
from mdpipe.data.splits import SPLITS


def write_manifest(folder: Path, metadata: dict[str, Any], splits: dict[str, dict[str, Any]]) -> None:
    """Write manifest.json and manifest.parquet."""
    import polars as pl  # Imported here because only stages that prepare data need it.

    write_json(folder / "manifest.json", {**metadata, "splits": splits})
    rows = [{**metadata, "split": split, **counts} for split, counts in splits.items()]
    cells = [{key: _to_cell(value) for key, value in row.items()} for row in rows]
    # Without statistics, which hold the library's version and so change the bytes.
    pl.DataFrame(cells, infer_schema_length=None).write_parquet(folder / "manifest.parquet", statistics=False)


def digest_file(folder: Path, split: str) -> Path:
    """Return the file of a shard with the SHA-256 of every document or image of a split, concatenated."""
    return folder / f"{split}.sha256"


def duplicate_counts(results: Mapping[str, Sequence[ShardResult]]) -> dict[str, dict[str, Any]]:
    """Return a content hash and the duplicates of each split, within it and of the training split.

    Documents are equal if the first 64 bits of their SHA-256 are.
    """
    hashes: dict[str, NDArray[np.uint64]] = {}
    content = {}
    for split in SPLITS:
        digests = [digest_file(result.folder, split).read_bytes() for result in results[split]]
        content[split] = hashlib.sha256(b"".join(digests)).hexdigest()
        words = hashlib.sha256().digest_size // 8
        hashes[split] = np.concatenate([np.frombuffer(digest, dtype=np.uint64)[::words] for digest in digests])
    train = np.unique(hashes["train"])
    return {
        split: {
            "content_hash": content[split],
            "duplicates": len(own) - len(np.unique(own)),
            "duplicates_of_training": 0 if split == "train" else int(np.isin(own, train).sum()),
        }
        for split, own in hashes.items()
    }


def _to_cell(value: Any) -> Any:
    """Return lists and mappings as JSON: a cell of a table is one value."""
    return json.dumps(value, sort_keys=True) if isinstance(value, (list, dict)) else value
