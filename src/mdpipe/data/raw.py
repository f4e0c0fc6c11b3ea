"""Raw material: the documents or pictures of a source, as the `download` stage keeps them.

source.json       modality, kind, counts, and for pictures the largest possible pixel value and the classes
documents.jsonl   text: one {"name", "text"} a line, sorted by name
images.npy        pictures: uint8 (N, H, W, C)
groups.npy        pictures: int32 (N,); pictures of one group always land in the same split
labels.npy        pictures that have labels: int64 (N,), from 0 to classes - 1
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdpipe.data.artifacts.arrays import open_array, open_labels
from mdpipe.data.artifacts.aside import folder_aside
from mdpipe.data.artifacts.stable_json import read_json, write_json


@dataclass(frozen=True)
class Document:
    """A text and the name it has within its source."""

    name: str
    text: str


@dataclass(frozen=True)
class Pictures:
    """Pictures of one size.

    Shapes: images uint8 (N, H, W, C), groups int32 (N,), labels int64 (N,) from 0 on. `maximum` is the largest possible
    pixel value.
    """

    images: NDArray[np.uint8]
    groups: NDArray[np.int32]
    maximum: int
    labels: NDArray[np.int64] | None = None
    class_names: tuple[str, ...] = ()
    """What the labels stand for, where the source has names for them."""

    @property
    def classes(self) -> int:
        """Number of classes, 0 without labels."""
        return 0 if self.labels is None else int(self.labels.max()) + 1


def write_raw(directory: Path, kind: str, material: Iterable[Document] | Pictures) -> None:
    """Keep what a source of this kind gave, as the folder `directory`.

    Raises:
        ValueError: there is nothing to keep, or the documents are not sorted by distinct names.
    """
    with folder_aside(directory) as folder:
        described = _write_images(folder, material) if isinstance(material, Pictures) else _write_text(folder, material)
        write_json(folder / "source.json", {"kind": kind, **described})


def read_documents(directory: Path) -> Iterator[Document]:
    """The documents of a raw text folder, in order.

    Raises:
        ValueError: the folder holds no text, or a line of it is broken.
    """
    _expect_modality(directory, "text")
    path = directory / "documents.jsonl"
    if not path.exists():
        raise ValueError(f"{path} does not exist; {_cure(directory)}")
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                entry = json.loads(line)
                document = Document(entry["name"], entry["text"])
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{path}:{number} is broken ({error!r}); {_cure(directory)}") from None
            yield document


def read_images(directory: Path) -> Pictures:
    """The pictures of a raw image folder, memory-mapped.

    Raises:
        ValueError: the folder holds no pictures, or its arrays do not fit each other.
    """
    source = _expect_modality(directory, "image")
    images = open_array(directory / "images.npy", _cure(directory))
    groups = open_array(directory / "groups.npy", _cure(directory))
    if images.dtype != np.uint8 or images.ndim != 4 or not len(images):
        found = f"{images.dtype} {images.shape}"
        raise ValueError(f"{directory / 'images.npy'} should be uint8 (N, H, W, C), not {found}; {_cure(directory)}")
    if groups.dtype != np.int32 or groups.shape != images.shape[:1]:
        raise ValueError(
            f"{directory / 'groups.npy'} should be int32 ({len(images)},), not {groups.dtype} {groups.shape};"
            f" {_cure(directory)}"
        )
    try:
        maximum, classes, class_names = source["maximum"], source["classes"], tuple(source["class_names"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{directory / 'source.json'} is incomplete ({error!r}); {_cure(directory)}") from None
    labels = open_labels(directory / "labels.npy", len(images), classes, _cure(directory)) if classes else None
    return Pictures(images, groups, maximum, labels, class_names)


def _write_text(folder: Path, documents: Iterable[Document]) -> dict[str, Any]:
    count = characters = size = 0
    previous = None
    with (folder / "documents.jsonl").open("w", encoding="utf-8", newline="\n") as lines:
        for document in documents:
            if previous is not None and document.name <= previous:
                raise ValueError(f"document {document.name!r} follows {previous!r}: names must be distinct and sorted")
            lines.write(json.dumps({"name": document.name, "text": document.text}, ensure_ascii=False) + "\n")
            previous = document.name
            count += 1
            characters += len(document.text)
            size += len(document.text.encode())
    if not count:
        raise ValueError("the source has no documents; check its settings in params.yaml under `sources`")
    return {"modality": "text", "documents": count, "characters": characters, "bytes": size}


def _write_images(folder: Path, pictures: Pictures) -> dict[str, Any]:
    if not len(pictures.images):
        raise ValueError("the source has no pictures; check its settings in params.yaml under `sources`")
    np.save(folder / "images.npy", pictures.images, allow_pickle=False)
    np.save(folder / "groups.npy", pictures.groups, allow_pickle=False)
    if pictures.labels is not None:
        np.save(folder / "labels.npy", pictures.labels, allow_pickle=False)
    return {
        "modality": "image",
        "images": len(pictures.images),
        "groups": len(np.unique(pictures.groups)),
        "shape": list(pictures.images.shape[1:]),
        "maximum": pictures.maximum,
        "classes": pictures.classes,
        "class_names": list(pictures.class_names),
    }


def _expect_modality(directory: Path, modality: str) -> dict[str, Any]:
    source = read_json(directory / "source.json", _cure(directory))
    if source.get("modality") != modality:
        raise ValueError(f"{directory} holds {source.get('modality')} data, not {modality} data")
    return source


def _cure(directory: Path) -> str:
    return f"run `dvc repro download@{directory.name}` again"
