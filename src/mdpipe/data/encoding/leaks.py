"""Held-out text that stands in the training text, looked for shard by shard."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdpipe.data.artifacts.aside import folder_aside
from mdpipe.data.encoding.leakage import found_in, share_found
from mdpipe.data.raw.material import Document
from mdpipe.data.splits.plan import SplitPlan
from mdpipe.data.work.piecewise import Piece, piecewise
from mdpipe.data.work.progress import Progress

HELD_OUT = ("validation", "test")
SEARCHED_AT_ONCE = 2**22
"""Characters of training text that are searched together."""
BETWEEN_DOCUMENTS = "\ud800"


def windows_of(folder: Path, split: str) -> Path:
    """Where an encoded shard keeps the hashes of the windows that it has of a split."""
    return folder / f"windows-{split}.npy"


@dataclass(frozen=True)
class _Search:
    """What a process is told of a shard in which it is to look for held-out text."""

    plan: SplitPlan
    index: int
    wanted: Path


def leaks_into(plan: SplitPlan, pieces: list[Piece], scratch: Path) -> dict[str, dict[str, Any]]:
    """Of each held-out split, how many windows were searched for and the share that the training text also has."""
    windows = {
        split: np.concatenate([np.load(windows_of(piece.folder, split), allow_pickle=False) for piece in pieces])
        for split in HELD_OUT
    }
    wanted = scratch / "wanted"
    if not wanted.exists():
        with folder_aside(wanted) as folder:
            np.save(folder / "hashes.npy", np.unique(np.concatenate(list(windows.values()))), allow_pickle=False)
    searches = [_Search(plan, index, wanted / "hashes.npy") for index in sorted(plan.pool)]
    with Progress("looking for leaks", sum(plan.shards[index].characters for index in plan.pool)) as progress:
        found = piecewise(_search, searches, scratch / "leaks", progress)
    hits = np.unique(np.concatenate([np.load(piece.folder / "found.npy", allow_pickle=False) for piece in found]))
    return {
        split: {"contamination_windows": len(hashes), "leaked": share_found(hashes, hits) if len(hashes) else None}
        for split, hashes in windows.items()
    }


def _search(search: _Search, folder: Path) -> dict[str, Any]:
    wanted = np.load(search.wanted, allow_pickle=False)
    found: NDArray[np.uint64] = np.empty(0, dtype=np.uint64)
    for text in _joined(document for split, document in search.plan.documents(search.index) if split == "train"):
        found = np.union1d(found, found_in(text, wanted))
    np.save(folder / "found.npy", found, allow_pickle=False)
    return {"bytes": search.plan.shards[search.index].characters}


def _joined(documents: Iterable[Document]) -> Iterator[str]:
    """Join documents into large texts to amortize the cost of a search.

    No text contains half a surrogate pair, so no match spans two documents.
    """
    texts: list[str] = []
    size = 0
    for document in documents:
        texts.append(document.text)
        size += len(document.text)
        if size >= SEARCHED_AT_ONCE:
            yield BETWEEN_DOCUMENTS.join(texts)
            texts, size = [], 0
    yield BETWEEN_DOCUMENTS.join(texts)
