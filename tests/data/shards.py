"""Raw folders of several shards, and what encoded folders hold."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mdpipe.data.encoded.dataset import EncodedDataset
from mdpipe.data.raw.material import Document, Pictures
from mdpipe.data.raw.writing import Part, write_parts
from mdpipe.data.splits.held import SPLITS, Held
from mdpipe.data.splits.plan import SplitPlan, plan_splits
from mdpipe.data.work.piecewise import scratch_beside


@dataclass(frozen=True)
class Texts:
    """A part of a source: these documents."""

    documents: tuple[Document, ...]
    split: str | None = None
    size: int = 1

    def read(self, counts: Counter[str]) -> Iterator[Document]:
        """Give them."""
        counts["documents seen"] += len(self.documents)
        yield from self.documents


@dataclass(frozen=True)
class Images:
    """A part of a source: these pictures."""

    pictures: Pictures
    split: str | None = None
    size: int = 1

    def read(self, counts: Counter[str]) -> Iterator[Pictures]:
        """Give them."""
        counts["pictures seen"] += len(self.pictures.images)
        yield self.pictures


def named(texts: Sequence[str]) -> list[Document]:
    """Texts as documents in this order."""
    return [Document(f"{index:06d}", text) for index, text in enumerate(texts)]


def in_parts(text: str, cuts: Sequence[int], name: str = "text") -> list[Document]:
    """A text that comes in several parts, cut at these places."""
    places = [0, *sorted(cuts), len(text)]
    parts = [text[start:end] for start, end in pairwise(places)]
    return [Document(name, part, number, number < len(parts) - 1) for number, part in enumerate(parts)]


def write_texts(directory: Path, documents: Sequence[Document], shards: int = 1, split: str | None = None) -> Path:
    """A raw folder of these documents in at most so many shards of neighbours."""
    ends = [len(documents) * number // shards for number in range(shards + 1)]
    parts = [Texts(tuple(documents[first:end]), split) for first, end in pairwise(ends)]
    return write_all(directory, parts)


def write_pictures(directory: Path, pictures: Pictures, shards: int = 1) -> Path:
    """A raw folder of these pictures in so many shards of neighbours."""
    parts = []
    for rows in np.array_split(np.arange(len(pictures.images)), shards):
        groups = None if pictures.groups is None else pictures.groups[rows]
        labels = None if pictures.labels is None else pictures.labels[rows]
        some = Pictures(pictures.images[rows], groups, pictures.maximum, labels, pictures.class_names)
        parts.append(Images(some))
    return write_all(directory, parts)


def write_all(directory: Path, parts: Sequence[Part]) -> Path:
    """A raw folder of these parts, one shard each."""
    with scratch_beside(directory) as scratch:
        write_parts(directory, "parts", parts, scratch)
    return directory


def by_split(plan: SplitPlan) -> dict[str, list[Document]]:
    """The documents of every split in order."""
    found: dict[str, list[Document]] = {split: [] for split in SPLITS}
    for index in range(len(plan.shards)):
        for split, document in plan.documents(index):
            found[split].append(document)
    return found


def splits_of(raw: Path, seed: int, validation: Held, test: Held) -> list[str | None]:
    """The split of each document of a raw text folder."""
    plan = plan_splits(raw, "text", seed, validation, test)
    return [split for index in range(len(plan.shards)) for split in plan.of_shard(index)]


def streams(directory: Path, splits: Sequence[str] = SPLITS) -> dict[str, NDArray[np.integer]]:
    """The tokens of every split, whatever shards they are in."""
    return {split: np.asarray(EncodedDataset.open(directory, split).tokens) for split in splits}


def folder_bytes(directory: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}
