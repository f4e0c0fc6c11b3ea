"""Raw data: the documents or images of a source as the `download` stage stores them, in shards of bounded size.

source.json              modality, kind, counts, shards, and for images the largest pixel value and the classes
documents-00000.jsonl    text: one {"name", "text"} per line, with {"part", "unfinished"} if a text spans several lines
images-00000.npy         images: uint8 (n, H, W, C)
labels-00000.npy         images with labels: int64 (n,), from 0 to classes - 1
keys-00000.npy           what decides the split of a document or image: ASCII of at most 64 characters (n,); equal keys
                         always end up in the same split

Shapes: N images or documents, H height, W width, C channels.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AliasChoices, ConfigDict, Field

from mdpipe.data.artifacts.arrays import ConcatArray, concat_arrays, open_array, open_labels
from mdpipe.data.artifacts.files import Header, read_header

KEY = np.dtype("S64")
"""Holds a SHA-256 in hexadecimal."""
IMAGES_PER_BATCH = 256
"""Images that are in memory together. A shard can end between two batches, so shards depend on it."""


@dataclass(frozen=True)
class Document:
    """A text and its name within the source."""

    name: str
    text: str
    part: int | None = None
    """Number of this part if a long text is read in several, else None."""
    unfinished: bool = False
    """True if the next document continues this one."""

    def key(self) -> str:
        """Return what decides the split: equal texts share it, and so do the parts of one text."""
        return hashlib.sha256((self.text if self.part is None else f"part of {self.name}").encode()).hexdigest()


@dataclass(frozen=True)
class ImageBatch:
    """Images of one size: uint8 (N, H, W, C), labels int64 (N,) from 0."""

    images: NDArray[np.uint8]
    groups: NDArray[np.int32] | None
    """(N,); images of one group share a split. None: images share a split if they are equal."""
    maximum: int
    """The largest possible pixel value."""
    labels: NDArray[np.int64] | None = None
    class_names: tuple[str, ...] = ()
    """Names of the labels, if the source has them."""
    stated_classes: int = 0
    """Number of classes, if the source states it without names."""

    @property
    def classes(self) -> int:
        """Return the number of classes, 0 without labels."""
        if self.labels is None:
            return 0
        return max(int(self.labels.max()) + 1, len(self.class_names), self.stated_classes)

    def keys(self) -> NDArray[np.bytes_]:
        """Return what decides the split of each image: (N,)."""
        if self.groups is not None:
            return self.groups.astype(KEY)
        return np.array([hashlib.sha256(image.tobytes()).hexdigest() for image in self.images], dtype=KEY)

    def batches(self) -> Iterator["ImageBatch"]:
        """Yield the images in batches of `IMAGES_PER_BATCH`."""
        for start in range(0, len(self.images), IMAGES_PER_BATCH):
            rows = slice(start, start + IMAGES_PER_BATCH)
            groups = None if self.groups is None else self.groups[rows]
            labels = None if self.labels is None else self.labels[rows]
            yield replace(self, images=self.images[rows], groups=groups, labels=labels)


class RawShard(Header):
    """A shard of a raw folder, as source.json describes it."""

    model_config = ConfigDict(extra="ignore")

    directory: Path = Path()
    index: int = 0
    split: str | None
    """The split that the source itself puts it in, if any."""
    count: int = Field(validation_alias=AliasChoices("images", "documents"))
    """Number of documents or images."""
    characters: int = 0
    """Number of characters; 0 for images."""

    @property
    def keys(self) -> NDArray[np.bytes_]:
        """Return the keys that decide each split: (count,)."""
        path = self.directory / f"keys-{self.index:05d}.npy"
        return open_array(path, _hint(self.directory), KEY, (self.count,))

    def documents(self) -> Iterator[Document]:
        """Yield the documents in order.

        Raises:
            ValueError: The file is missing, or a line of it is broken.
        """
        path, hint = self.directory / f"documents-{self.index:05d}.jsonl", _hint(self.directory)
        if not path.exists():
            raise ValueError(f"{path} does not exist; {hint}")
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    entry = json.loads(line)
                    document = Document(entry["name"], entry["text"], entry.get("part"), entry.get("unfinished", False))
                except (ValueError, KeyError, TypeError) as error:
                    raise ValueError(f"{path}:{number} is broken ({error!r}); {hint}") from None
                yield document

    def images(self) -> NDArray[np.uint8]:
        """Memory-map the images: (count, H, W, C).

        Raises:
            ValueError: The file is missing or does not match source.json.
        """
        path, hint = self.directory / f"images-{self.index:05d}.npy", _hint(self.directory)
        images: NDArray[np.uint8] = open_array(path, hint)
        if images.dtype != np.uint8 or images.ndim != 4 or len(images) != self.count:
            raise ValueError(
                f"{path} should be uint8 ({self.count}, H, W, C), not {images.dtype} {images.shape}; {hint}"
            )
        return images


class _RawFolder(Header):
    """The keys of source.json that all modalities have."""

    model_config = ConfigDict(extra="ignore")

    modality: str
    shards: tuple[RawShard, ...]


class RawImages(_RawFolder):
    """The images of a raw folder."""

    shape: tuple[int, int, int]
    """(H, W, C)."""
    maximum: int
    classes: int
    class_names: tuple[str, ...]

    def labels_of(self, shard: RawShard) -> NDArray[np.int64] | None:
        """Return the class labels of a shard, or None if there are none."""
        if not self.classes:
            return None
        path = shard.directory / f"labels-{shard.index:05d}.npy"
        return open_labels(path, shard.count, self.classes, _hint(shard.directory))

    @property
    def images(self) -> NDArray[np.uint8] | ConcatArray[np.uint8]:
        """Return all images: (N, H, W, C)."""
        return concat_arrays([shard.images() for shard in self.shards])


def read_images(directory: Path) -> RawImages:
    """Open a raw image folder.

    Raises:
        ValueError: The folder holds no images, or source.json is incomplete.
    """
    shards = raw_shards(directory, "image")
    header = read_header(directory / "source.json", RawImages, _hint(directory))
    found = header.model_copy(update={"shards": tuple(shards)})
    for shard in shards:
        found.labels_of(shard)
        if shard.images().shape[1:] != found.shape or not len(shard.keys):
            raise ValueError(f"{directory}: shard {shard.index} has no images of {found.shape}; {_hint(directory)}")
    return found


def raw_shards(directory: Path, modality: Literal["text", "image"]) -> list[RawShard]:
    """Return the shards of a raw folder in order.

    Raises:
        ValueError: The folder holds another modality, or source.json is missing or broken.
    """
    header = read_header(directory / "source.json", _RawFolder, _hint(directory))
    if header.modality != modality:
        raise ValueError(f"{directory} holds {header.modality} data, not {modality} data")
    return [
        shard.model_copy(update={"directory": directory, "index": index}) for index, shard in enumerate(header.shards)
    ]


def _hint(directory: Path) -> str:
    return f"run `dvc repro download@{directory.name}` again"
