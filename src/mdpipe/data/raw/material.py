"""Raw material: the documents or pictures of a source, as the `download` stage keeps them, in shards of bounded size.

source.json              modality, kind, counts, its shards, and for pictures the largest pixel value and the classes
documents-00000.jsonl    text: one {"name", "text"} a line, and {"part", "unfinished"} where a text goes over several
images-00000.npy         pictures: uint8 (n, H, W, C)
labels-00000.npy         pictures that have labels: int64 (n,), from 0 to classes - 1
keys-00000.npy           what decides a document's or picture's split: ASCII of at most 64 characters (n,); equal keys
                         always land in the same split
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mdpipe.data.artifacts.arrays import open_array, open_labels
from mdpipe.data.artifacts.joined import Joined, joined
from mdpipe.data.artifacts.stable_json import read_json

KEY = np.dtype("S64")
"""A SHA-256 in hexadecimal fits."""


@dataclass(frozen=True)
class Document:
    """A text and the name it has within its source."""

    name: str
    text: str
    part: int | None = None
    """Which part of a text that comes in several, or None for a whole one."""
    unfinished: bool = False
    """Whether the next document is the continuation of this one."""

    def key(self) -> str:
        """What decides its split: equal texts share theirs, and so do the parts of one text."""
        return hashlib.sha256((self.text if self.part is None else f"part of {self.name}").encode()).hexdigest()


@dataclass(frozen=True)
class Pictures:
    """Pictures of one size.

    Shapes: images uint8 (N, H, W, C), labels int64 (N,) from 0 on. `maximum` is the largest possible pixel value.
    """

    images: NDArray[np.uint8]
    groups: NDArray[np.int32] | None
    """(N,); pictures of one group share a split. None: pictures share one where they are equal."""
    maximum: int
    labels: NDArray[np.int64] | None = None
    class_names: tuple[str, ...] = ()
    """What the labels stand for, where the source has names for them."""
    stated_classes: int = 0
    """How many classes there are, where the source says so without names for them."""

    @property
    def classes(self) -> int:
        """Number of classes, 0 without labels."""
        if self.labels is None:
            return 0
        return max(int(self.labels.max()) + 1, len(self.class_names), self.stated_classes)

    def keys(self) -> NDArray[np.bytes_]:
        """What decides each picture's split: (N,)."""
        if self.groups is not None:
            return self.groups.astype(KEY)
        return np.array([hashlib.sha256(image.tobytes()).hexdigest() for image in self.images], dtype=KEY)


@dataclass(frozen=True)
class RawShard:
    """A part of a raw folder."""

    directory: Path
    index: int
    split: str | None
    """The split that the source itself puts it in, if it does."""
    count: int
    """Documents, or pictures."""
    characters: int
    """Of text; 0 for pictures."""

    @property
    def keys(self) -> NDArray[np.bytes_]:
        """What decides each split: (count,)."""
        path = self.directory / f"keys-{self.index:05d}.npy"
        keys: NDArray[np.bytes_] = open_array(path, _cure(self.directory))
        if keys.dtype != KEY or keys.shape != (self.count,):
            raise ValueError(
                f"{path} should be {KEY} ({self.count},), not {keys.dtype} {keys.shape}; {_cure(self.directory)}"
            )
        return keys

    def documents(self) -> Iterator[Document]:
        """The documents of a shard of text, in order.

        Raises:
            ValueError: the file is missing, or a line of it is broken.
        """
        path = self.directory / f"documents-{self.index:05d}.jsonl"
        if not path.exists():
            raise ValueError(f"{path} does not exist; {_cure(self.directory)}")
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    entry = json.loads(line)
                    document = Document(entry["name"], entry["text"], entry.get("part"), entry.get("unfinished", False))
                except (ValueError, KeyError, TypeError) as error:
                    raise ValueError(f"{path}:{number} is broken ({error!r}); {_cure(self.directory)}") from None
                yield document

    def begins(self) -> list[bool]:
        """Of each document whether it is a whole one or the first part of one; true of every picture: (count,).

        Raises:
            ValueError: a file of text is missing, or a line of it is broken.
        """
        return [not document.part for document in self.documents()] if self.characters else [True] * self.count

    def images(self) -> NDArray[np.uint8]:
        """The pictures, memory-mapped: (count, H, W, C).

        Raises:
            ValueError: the file is missing or is not what source.json says.
        """
        path = self.directory / f"images-{self.index:05d}.npy"
        images: NDArray[np.uint8] = open_array(path, _cure(self.directory))
        if images.dtype != np.uint8 or images.ndim != 4 or len(images) != self.count:
            found = f"{images.dtype} {images.shape}"
            raise ValueError(f"{path} should be uint8 ({self.count}, H, W, C), not {found}; {_cure(self.directory)}")
        return images

    def labels(self, classes: int) -> NDArray[np.int64]:
        """The classes of the pictures: (count,)."""
        return open_labels(self.directory / f"labels-{self.index:05d}.npy", self.count, classes, _cure(self.directory))


@dataclass(frozen=True)
class RawImages:
    """What all pictures of a raw folder have in common."""

    shards: list[RawShard]
    shape: tuple[int, ...]
    """(H, W, C)."""
    maximum: int
    classes: int
    class_names: tuple[str, ...]

    def labels_of(self, shard: RawShard) -> NDArray[np.int64] | None:
        """The classes of a shard's pictures, where they have any."""
        return shard.labels(self.classes) if self.classes else None

    @property
    def images(self) -> NDArray[np.uint8] | Joined[np.uint8]:
        """All pictures: (N, H, W, C)."""
        return joined([shard.images() for shard in self.shards])


def read_documents(directory: Path) -> Iterator[Document]:
    """The documents of a raw text folder, in order.

    Raises:
        ValueError: the folder holds no text, or a line of it is broken.
    """
    for shard in raw_shards(directory, "text"):
        yield from shard.documents()


def read_images(directory: Path) -> RawImages:
    """The pictures of a raw image folder.

    Raises:
        ValueError: the folder holds no pictures, or source.json is incomplete.
    """
    shards = raw_shards(directory, "image")
    source = read_json(directory / "source.json", _cure(directory))
    try:
        shape, maximum, classes = tuple(source["shape"]), source["maximum"], source["classes"]
        found = RawImages(shards, shape, maximum, classes, tuple(source["class_names"]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{directory / 'source.json'} is incomplete ({error!r}); {_cure(directory)}") from None
    for shard in shards:
        found.labels_of(shard)
        if shard.images().shape[1:] != shape or not len(shard.keys):
            raise ValueError(f"{directory}: shard {shard.index} has no pictures of {shape}; {_cure(directory)}")
    return found


def raw_shards(directory: Path, modality: Literal["text", "image"]) -> list[RawShard]:
    """The shards of a raw folder, in order.

    Raises:
        ValueError: the folder holds another modality, or source.json is missing or broken.
    """
    source = read_json(directory / "source.json", _cure(directory))
    if source.get("modality") != modality:
        raise ValueError(f"{directory} holds {source.get('modality')} data, not {modality} data")
    try:
        return [_shard(directory, index, entry) for index, entry in enumerate(source["shards"])]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{directory / 'source.json'} is incomplete ({error!r}); {_cure(directory)}") from None


def _shard(directory: Path, index: int, entry: dict[str, Any]) -> RawShard:
    count = entry["images"] if "images" in entry else entry["documents"]
    return RawShard(directory, index, entry["split"], count, entry.get("characters", 0))


def _cure(directory: Path) -> str:
    return f"run `dvc repro download@{directory.name}` again"
