"""Raw folders of several shards, and what encoded folders hold."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from mdpipe.data.dataset import EncodedDataset
from mdpipe.data.raw import Document, ImageBatch, raw_shards
from mdpipe.data.sources.writer import SourceShard, write_shards
from mdpipe.data.splits import SPLITS, SplitPlan
from mdpipe.params.data import SplitSpec
from tests.data.builders import plan_splits


def text_shard(documents: Sequence[Document], split: str | None = None) -> SourceShard:
    """Return a shard of a source that has these documents."""
    return SourceShard(split, 1, partial(_documents, tuple(documents)))


def image_shard(images: ImageBatch, split: str | None = None) -> SourceShard:
    """Return a shard of a source that has these images."""
    return SourceShard(split, 1, partial(_images, images))


def _documents(documents: Sequence[Document], counts: Counter[str]) -> Iterator[Document]:
    counts["documents seen"] += len(documents)
    yield from documents


def _images(images: ImageBatch, counts: Counter[str]) -> Iterator[ImageBatch]:
    counts["pictures seen"] += len(images.images)
    yield images


def make_documents(texts: Sequence[str]) -> list[Document]:
    """Texts as documents in this order."""
    return [Document(f"{index:06d}", text) for index, text in enumerate(texts)]


def in_parts(text: str, cuts: Sequence[int], name: str = "text") -> list[Document]:
    """A text that comes in several parts, cut at these positions."""
    positions = [0, *sorted(cuts), len(text)]
    parts = [text[start:end] for start, end in pairwise(positions)]
    return [Document(name, part, number, number < len(parts) - 1) for number, part in enumerate(parts)]


def write_texts(directory: Path, documents: Sequence[Document], shards: int = 1, split: str | None = None) -> Path:
    """A raw folder of these documents in at most this many shards of neighbors."""
    ends = [len(documents) * number // shards for number in range(shards + 1)]
    source_shards = [text_shard(documents[first:end], split) for first, end in pairwise(ends)]
    return write_all(directory, source_shards)


def write_image_shards(directory: Path, image_batch: ImageBatch, shards: int = 1) -> Path:
    """A raw folder of these images in this many shards of neighbors."""
    source_shards = []
    for rows in np.array_split(np.arange(len(image_batch.images)), shards):
        groups = None if image_batch.groups is None else image_batch.groups[rows]
        labels = None if image_batch.labels is None else image_batch.labels[rows]
        some = ImageBatch(image_batch.images[rows], groups, image_batch.maximum, labels, image_batch.class_names)
        source_shards.append(image_shard(some))
    return write_all(directory, source_shards)


def write_raw(directory: Path, kind: str, content: Iterable[Document] | ImageBatch) -> None:
    """Store documents or images as one shard."""
    with TemporaryDirectory() as work_dir:
        write_shards(directory, kind, [SourceShard(None, 0, partial(_in_memory, content))], Path(work_dir))


def _in_memory(
    content: Iterable[Document] | ImageBatch, counts: Counter[str]
) -> Iterator[Document] | Iterator[ImageBatch]:
    return iter([content]) if isinstance(content, ImageBatch) else iter(content)


def read_documents(directory: Path) -> Iterator[Document]:
    """Yield the documents of a raw text folder in order."""
    for shard in raw_shards(directory, "text"):
        yield from shard.documents()


def write_all(directory: Path, source_shards: Sequence[SourceShard]) -> Path:
    """A raw folder of these shards."""
    with TemporaryDirectory() as work_dir:
        write_shards(directory, "parts", source_shards, Path(work_dir))
    return directory


def by_split(plan: SplitPlan) -> dict[str, list[Document]]:
    """The documents of every split in order."""
    found: dict[str, list[Document]] = {split: [] for split in SPLITS}
    for index in range(len(plan.shards)):
        for split, document, _ in plan.documents(index):
            found[split].append(document)
    return found


def splits_of(raw: Path, seed: int, validation: SplitSpec, test: SplitSpec) -> list[str | None]:
    """The split of each document of a raw text folder."""
    plan = plan_splits(raw, "text", seed, validation, test)
    return [split for index in range(len(plan.shards)) for split in plan.of_shard(index)]


def streams(directory: Path, splits: Sequence[str] = SPLITS) -> dict[str, NDArray[np.integer]]:
    """The tokens of every split, whatever shards they are in."""
    return {split: np.asarray(EncodedDataset.open(directory, split).tokens) for split in splits}


def folder_bytes(directory: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}
