"""The manifest of an encoded dataset: where it came from and what is in each split, as JSON and as a table.

manifest.json      source, tokenizer, and tokens per example, and under "splits" what each has: documents or images,
                   tokens, bytes, characters, examples, unknown tokens, longest document, histogram of lengths (bin k:
                   2^k to 2^(k+1) - 1 tokens), content hash, duplicates, of pictures with labels how many of the classes
                   occur, and of a held-out split of text the windows of 50 characters that the contamination search
                   looked for, and the share that leaked; the parts of a text that comes in several have lengths of
                   their own
manifest.parquet   the same with a row a split
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdpipe.data.artifacts.stable_json import write_json
from mdpipe.data.splits.held import SPLITS
from mdpipe.data.work.piecewise import Piece


def write_manifest(folder: Path, about: dict[str, Any], splits: dict[str, dict[str, Any]]) -> None:
    """Write manifest.json and manifest.parquet."""
    import polars as pl  # Only who prepares data needs it.

    write_json(folder / "manifest.json", {**about, "splits": splits})
    rows = [{**about, "split": split, **told} for split, told in splits.items()]
    plain = [{key: _plain(value) for key, value in row.items()} for row in rows]
    # Without the library's version in it, which would change the bytes.
    pl.DataFrame(plain, infer_schema_length=None).write_parquet(folder / "manifest.parquet", statistics=False)


def digests_of(folder: Path, split: str) -> Path:
    """The file of a piece that has the SHA-256 of every document or picture of a split, one after another."""
    return folder / f"{split}.sha256"


def duplicates(pieces: Mapping[str, Sequence[Piece]]) -> dict[str, dict[str, Any]]:
    """Of each split a hash of its content, how many of its documents repeat another one of it, and how many one of the
    training split. Documents are the same if the first 64 bits of their SHA-256 are.
    """
    known: dict[str, NDArray[np.uint64]] = {}
    content = {}
    for split in SPLITS:
        found, whole = [np.empty(0, dtype=np.uint64)], hashlib.sha256()
        for piece in pieces[split]:
            digests = digests_of(piece.folder, split).read_bytes()
            whole.update(digests)
            found.append(np.frombuffer(digests, dtype=np.uint64)[:: hashlib.sha256().digest_size // 8])
        known[split], content[split] = np.concatenate(found), whole.hexdigest()
    trained = np.unique(known["train"])
    return {
        split: {
            "content": content[split],
            "duplicates": len(mine) - len(np.unique(mine)),
            "duplicates_of_training": 0 if split == "train" else int(np.isin(mine, trained).sum()),
        }
        for split, mine in known.items()
    }


def _plain(value: Any) -> Any:
    """Lists and mappings as JSON: a cell of a table is one value."""
    return json.dumps(value, sort_keys=True) if isinstance(value, (list, dict)) else value
