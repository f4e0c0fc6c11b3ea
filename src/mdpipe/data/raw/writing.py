"""From the parts of a source to the folder that `raw_shards` reads."""

import errno
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np

from mdpipe.data.artifacts.arrays import ArrayFile
from mdpipe.data.artifacts.aside import folder_aside
from mdpipe.data.artifacts.linked import place
from mdpipe.data.artifacts.room import require_room
from mdpipe.data.artifacts.stable_json import write_json
from mdpipe.data.raw.material import KEY, Document, Pictures
from mdpipe.data.work.piecewise import Piece, piecewise, scratch_beside
from mdpipe.data.work.progress import Progress

NOTHING = "the source has no documents or pictures; check its settings in params.yaml under `sources`"
SHARD_BYTES = 64 * 2**20
"""Of a raw shard, about: what a process that encodes has to itself, many of which make a large corpus."""
ROOM = 2
"""Bytes a raw folder takes for every byte of its source, at most but for packed files: JSON escapes some characters."""
ONE_SIZE = (
    "all pictures of a source must have one size and one mode: convert them, narrow its `pattern`, or let its `resize`"
    " in params.yaml cut them"
)
FOUND = ("files", "rows")
"""What parts count of what they find; all else that they count is left out, replaced or converted."""
MOST_CHARACTERS = 64 * 2**20
"""Of one document in memory: several of these fit beside each other in a gigabyte, as they must on several cores."""


class Part(Protocol):
    """What one process reads of a source: a file, some rows of a table."""

    @property
    def split(self) -> str | None:
        """The split that the source itself puts it in, if it does."""

    @property
    def size(self) -> int:
        """Bytes, about, for progress."""

    def read(self, counts: Counter[str]) -> Iterator[Document] | Iterator[Pictures]:
        """Documents in order or pictures of one size, and in `counts` what was found, left out, replaced or converted.

        Raises:
            ValueError: something is broken; the message names file and cure.
        """


def write_parts(
    directory: Path, kind: str, parts: Sequence[Part], scratch: Path, expected: Mapping[str, int] | None = None
) -> None:
    """Keep what the parts of a source of this kind give as the folder `directory`.

    Parts are read side by side. After a kill, those that were finished are taken from `scratch`.

    Args:
        directory: what is written.
        kind: of the source.
        parts: what it consists of.
        scratch: where finished parts are kept.
        expected: what is published of it: characters, or documents or pictures of its own splits by their names.

    Raises:
        ValueError: there is nothing to keep, a part is broken, pictures differ in size or in number of channels, labels
            are not numbered from 0 on, or it is not what was expected.
    """
    total = sum(part.size for part in parts)
    require_room(scratch, ROOM * total, f"reading {directory.name}")
    with Progress(f"reading {directory.name}", total or None) as progress:
        pieces = piecewise(_write_part, parts, scratch, progress)
    shards = [shard for piece in pieces for shard in piece.summary["shards"]]
    counts = Counter[str]()
    for piece in pieces:
        counts.update(piece.summary["counts"])
    counted = {what: counts[what] for what in (*FOUND, *sorted(counts.keys() - set(FOUND))) if counts[what]}
    said = "; ".join(f"{count:,} {what}" for what, count in counted.items())
    if not shards:
        raise ValueError(f"{NOTHING} (found: {said})" if said else NOTHING)
    modality = "image" if "images" in shards[0] else "text"
    if modality == "image":
        _check_labels(pieces, shards[0]["stated_classes"])
    described = _text(shards) if modality == "text" else _images(shards)
    _check_expected(shards, counts, expected or {})
    with folder_aside(directory) as folder:
        places = [(piece, number) for piece in pieces for number in range(len(piece.summary["shards"]))]
        for index, (piece, number) in enumerate(places):
            for file in piece.folder.glob(f"*-{number:05d}.*"):
                place(file, folder / file.name.replace(f"-{number:05d}.", f"-{index:05d}."))
        header = {"kind": kind, "modality": modality, "shards": shards, "read": counted, **described}
        write_json(folder / "source.json", header)
    made = f"{described['documents']:,} documents" if modality == "text" else f"{described['images']:,} pictures"
    if described.get("classes"):
        made += f" of {described['classes']:,} classes"
    sys.stderr.write(f"{directory.name}: {made}{' from ' if said else ''}{said}\n")


def _check_expected(shards: Sequence[Mapping[str, Any]], counts: Counter[str], expected: Mapping[str, int]) -> None:
    found = Counter[str](characters=sum(shard.get("characters", 0) for shard in shards))
    for shard in shards:
        found[str(shard["split"])] += shard["images"] if "images" in shard else shard["documents"]
    # What else is counted, such as pictures that were turned, changes no number.
    complete = not any(what.endswith(("left out", "replaced")) for what in counts)
    for what, count in expected.items():
        if complete and found[what] != count and (what == "characters" or what in found):
            raise ValueError(
                f"{what} should be {count:,} by the catalogue, and there are {found[what]:,}: this is not the published"
                " data set. To use it all the same, make the settings that `mdpipe datasets NAME` prints a source of"
                " your own in params.yaml"
            )


def write_raw(directory: Path, kind: str, material: Iterable[Document] | Pictures) -> None:
    """Keep documents or pictures that are at hand, as one shard.

    Raises:
        ValueError: there is nothing to keep, or the documents are not sorted by distinct names.
    """
    with scratch_beside(directory) as scratch:
        write_parts(directory, kind, [_AtHand(material)], scratch)


class _AtHand:
    """A part that lies in memory."""

    split = None
    size = 0

    def __init__(self, material: Iterable[Document] | Pictures) -> None:
        self._material = material

    def read(self, counts: Counter[str]) -> Iterator[Document] | Iterator[Pictures]:  # noqa: ARG002
        if isinstance(self._material, Pictures):
            return iter([self._material])
        return iter(self._material)


def _write_part(part: Part, folder: Path) -> dict[str, Any]:
    """The part as shards 00000, 00001, ... of bounded size: a packed file of any size is a single part."""
    counts = Counter[str]()
    material = part.read(counts)
    shards: list[dict[str, Any]] = []
    previous: tuple[str, int] | None = None
    for first in material:
        number = f"{len(shards):05d}"
        # A packed file may be of any size: stop while others have room.
        if shards and shutil.disk_usage(folder).free < 2 * SHARD_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        rest = chain([first], material)
        if isinstance(first, Pictures):
            if not len(first.images):
                continue
            shard = _write_images(folder, number, cast("Iterator[Pictures]", rest))
        else:
            shard, previous = _write_text(folder, number, cast("Iterator[Document]", rest), previous)
        shards.append({"split": part.split, **shard})
    return {"shards": shards, "counts": dict(counts), "bytes": part.size}


def _write_text(
    folder: Path, number: str, documents: Iterator[Document], previous: tuple[str, int] | None
) -> tuple[dict[str, Any], tuple[str, int] | None]:
    """As many documents as a shard takes; also name and part of the last one."""
    count = characters = size = 0
    with (
        (folder / f"documents-{number}.jsonl").open("w", encoding="utf-8", newline="\n") as lines,
        ArrayFile(folder / f"keys-{number}.npy", KEY) as keys,
    ):
        for document in documents:
            place = (document.name, document.part or 0)
            if previous is not None and place <= previous:
                raise ValueError(
                    f"document {document.name!r} follows {previous[0]!r}: names must be distinct and sorted"
                )
            if len(document.text) > MOST_CHARACTERS:
                raise ValueError(
                    f"document {document.name!r} has {len(document.text):,} characters, more than {MOST_CHARACTERS:,};"
                    " cut it into several documents"
                )
            entry: dict[str, Any] = {"name": document.name, "text": document.text}
            if document.part is not None:
                entry |= {"part": document.part, "unfinished": document.unfinished}
            lines.write(json.dumps(entry, ensure_ascii=False) + "\n")
            keys.append(np.array([document.key()], dtype=KEY))
            previous = place
            count += 1
            characters += len(document.text)
            size += len(document.text.encode())
            if size >= SHARD_BYTES:
                break
    return {"documents": count, "characters": characters, "bytes": size}, previous


def _write_images(folder: Path, number: str, batches: Iterator[Pictures]) -> dict[str, Any]:
    """As many pictures as a shard takes."""
    first = next(batches)
    classes = 0
    with (
        ArrayFile(folder / f"images-{number}.npy", np.uint8, first.images.shape[1:]) as images,
        ArrayFile(folder / f"keys-{number}.npy", KEY) as keys,
        ArrayFile(folder / f"labels-{number}.npy", np.int64) as labels,
    ):
        for batch in chain([first], batches):
            images.append(batch.images)
            keys.append(batch.keys())
            classes = max(classes, batch.classes)
            if batch.labels is not None:
                labels.append(batch.labels)
            if images.rows * first.images[0].nbytes >= SHARD_BYTES:
                break
    if first.labels is None:
        (folder / f"labels-{number}.npy").unlink()
    return {
        "images": images.rows,
        "shape": list(first.images.shape[1:]),
        "maximum": first.maximum,
        "classes": classes,
        "class_names": list(first.class_names),
        "stated_classes": max(len(first.class_names), first.stated_classes),
    }


def _text(shards: list[dict[str, Any]]) -> dict[str, int]:
    return {what: sum(shard[what] for shard in shards) for what in ("documents", "characters", "bytes")}


def _images(shards: list[dict[str, Any]]) -> dict[str, Any]:
    """What all pictures have in common; it moves there from the shards.

    Raises:
        ValueError: shards differ in the size of their pictures, in the number of channels, or in the names of classes.
    """
    first = shards[0]
    for shard in shards[1:]:
        if shard["class_names"] != first["class_names"]:
            raise ValueError(
                f"files of the source have different names for their classes, {first['class_names'][:10]} and"
                f" {shard['class_names'][:10]}, so that one number would be two classes; save them with the same names,"
                " or narrow the source's `pattern` in params.yaml"
            )
        if shard["shape"] != first["shape"]:
            raise ValueError(
                f"pictures of {first['shape']} are followed by pictures of {shard['shape']} (height, width, channels);"
                f" {ONE_SIZE}"
            )
    described = {
        "images": sum(shard["images"] for shard in shards),
        "shape": first["shape"],
        "maximum": first["maximum"],
        "classes": max(shard["classes"] for shard in shards),
        "class_names": first["class_names"],
    }
    for shard in shards:
        for key in ("shape", "maximum", "classes", "class_names", "stated_classes"):
            del shard[key]
    return described


def _check_labels(pieces: Sequence[Piece], stated: int) -> None:
    """Pass if labels are numbers of classes and not ids: a network has weights for every number up to the largest.

    Where the source states its classes, some of them may be without pictures.

    Raises:
        ValueError: a label is none of the stated classes, or where none are stated, numbers from 0 on are left out.
    """
    files = [file for piece in pieces for file in sorted(piece.folder.glob("labels-*.npy"))]
    if not files:
        return
    found = np.unique(np.concatenate([np.unique(np.load(file, allow_pickle=False)) for file in files]))
    if stated and found[-1] >= stated:
        raise ValueError(f"a picture has the label {found[-1]}, but the source has the classes 0 to {stated - 1}")
    if not stated and found[-1] >= len(found):
        missing = int(np.flatnonzero(found != np.arange(len(found)))[0])
        raise ValueError(
            f"labels are not consecutive from 0: there are {len(found):,} different ones from {found[0]} to"
            f" {found[-1]}, and no picture has {missing}; number the classes, for example with"
            " `numpy.unique(labels, return_inverse=True)[1]`, or set the source's `labels` (or `label`) in params.yaml"
            " to null"
        )
