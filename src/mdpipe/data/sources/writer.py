"""Write the shards of a source as the folder that `raw_shards` reads."""

import errno
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, cast

import numpy as np

from mdpipe.data.artifacts.arrays import ArrayFile
from mdpipe.data.artifacts.files import atomic_dir, check_disk_space, link_or_copy, write_json
from mdpipe.data.parallel import ShardResult, map_shards
from mdpipe.data.raw import KEY, Document, ImageBatch
from mdpipe.messages import counted
from mdpipe.progress import Progress

EMPTY_SOURCE = "the source has no documents or images; check its settings in params.yaml under `sources`"
SHARD_BYTES = 64 * 2**20
"""Approximate size of a raw shard, the unit of parallel work."""
DISK_FACTOR = 2
"""Most bytes of a raw folder per byte of uncompressed source: JSON escapes some characters."""
ONE_SIZE = (
    "all images of a source must have one size and one mode: convert them, narrow its `pattern`, or set its `resize`"
    " for the size, its `mode` to L or RGB, in params.yaml"
)
MAX_LISTED = 3
"""Broken images that an error names."""
FOUND = ("files", "rows")
"""Counts of what a source has; all other counts are of what was left out, replaced or converted."""
MAX_CHARACTERS = 64 * 2**20
"""Limit of one document in memory: several must fit into a gigabyte, one per core."""


@dataclass(frozen=True)
class SourceShard:
    """A unit of reading: a range of lines, some files, some rows of a table. It is sent to worker processes."""

    split: str | None
    """The split that the source itself puts it in, if any."""
    size: int
    """Approximate bytes, for progress."""
    read: Callable[[Counter[str]], Iterator[Document] | Iterator[ImageBatch]]
    """Yields documents in order or images of one size, and counts what was found, left out, replaced or converted.
    Raises ValueError that names the file and a hint if something is broken."""


class BrokenImagesError(ValueError):
    """Images that cannot be read: what is wrong with the first few, and how many there are."""

    def __init__(self, problems: Sequence[str], count: int) -> None:
        shown, more = problems[:MAX_LISTED], count - min(len(problems), MAX_LISTED)
        lines = [f"{count:,} images cannot be used:", *shown, *([f"and {more:,} more"] if more else [])]
        super().__init__("\n".join(lines) if count > 1 else problems[0])
        self.problems, self.count = shown, count


def write_shards(
    directory: Path,
    kind: str,
    sources: Sequence[SourceShard],
    work_dir: Path,
    expected: Mapping[str, int] | None = None,
) -> None:
    """Read the shards of a source in parallel and store them as the folder `directory`.

    Args:
        directory: The folder to write.
        kind: The kind of the source.
        sources: The shards of the source.
        work_dir: Folder of finished shards, so that a killed stage resumes with the others.
        expected: Published sizes: characters, or documents or images by split.

    Raises:
        ValueError: The source is empty or broken, images are broken or differ in size or in number of channels, labels
            are not numbered from 0, or the sizes are not the expected ones.
    """
    total = sum(source.size for source in sources)
    check_disk_space(work_dir, DISK_FACTOR * total, f"reading {directory.name}")
    with Progress(f"reading {directory.name}", total or None) as progress:
        results = map_shards(_write_shard, sources, work_dir, progress)
    _refuse_broken(results)
    shards = [shard for result in results for shard in result.summary["shards"]]
    counts = Counter[str]()
    for result in results:
        counts.update(result.summary["counts"])
    read = {what: counts[what] for what in (*FOUND, *sorted(counts.keys() - set(FOUND))) if counts[what]}
    listed = "; ".join(counted(count, what) for what, count in read.items())
    if not shards:
        raise ValueError(f"{EMPTY_SOURCE} (found: {listed})" if listed else EMPTY_SOURCE)
    if "images" in shards[0]:
        _check_labels(results, shards[0]["stated_classes"])
        header = {"modality": "image", **_describe_images(shards)}
        of_classes = f" of {counted(header['classes'], 'classes')}" if header["classes"] else ""
        summary = counted(header["images"], "images") + of_classes
    else:
        totals = {what: sum(shard[what] for shard in shards) for what in ("documents", "characters", "bytes")}
        header = {"modality": "text", **totals}
        summary = counted(header["documents"], "documents")
    _check_expected(shards, counts, expected or {})
    with atomic_dir(directory) as folder:
        numbered = [(result, number) for result in results for number in range(len(result.summary["shards"]))]
        for index, (result, number) in enumerate(numbered):
            for file in result.folder.glob(f"*-{number:05d}.*"):
                link_or_copy(file, folder / file.name.replace(f"-{number:05d}.", f"-{index:05d}."))
        write_json(folder / "source.json", {"kind": kind, "shards": shards, "read": read, **header})
    sys.stderr.write(f"{directory.name}: {summary}{' from ' if listed else ''}{listed}\n")


def _write_shard(source: SourceShard, folder: Path) -> dict[str, Any]:
    """Write raw shards 00000, 00001, ... of bounded size: a compressed file of any size is a single source shard."""
    counts = Counter[str]()
    content = source.read(counts)
    shards: list[dict[str, Any]] = []
    previous: tuple[str, int] | None = None
    try:
        for first in content:
            number = f"{len(shards):05d}"
            # A compressed file may be of any size: stop while others have room.
            if shards and shutil.disk_usage(folder).free < 2 * SHARD_BYTES:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            rest = chain([first], content)
            if isinstance(first, ImageBatch):
                if not len(first.images):
                    continue
                shard = _write_images(folder, number, cast("Iterator[ImageBatch]", rest))
            else:
                shard, previous = _write_text(folder, number, cast("Iterator[Document]", rest), previous)
            shards.append({"split": source.split, **shard})
    except BrokenImagesError as error:  # The error names the broken images of all shards.
        return {"broken": error.problems, "count": error.count, "bytes": source.size}
    return {"shards": shards, "counts": dict(counts), "bytes": source.size}


def _refuse_broken(results: Sequence[ShardResult]) -> None:
    """Raise the error of the broken images of all shards, which are read again the next time."""
    broken = [result for result in results if "broken" in result.summary]
    for result in broken:
        shutil.rmtree(result.folder)
    if broken:
        problems = [problem for result in broken for problem in result.summary["broken"]]
        raise BrokenImagesError(problems, sum(result.summary["count"] for result in broken))


def _write_text(
    folder: Path, number: str, documents: Iterator[Document], previous: tuple[str, int] | None
) -> tuple[dict[str, Any], tuple[str, int] | None]:
    """Write the documents that fit into a shard; return its counts, and name and part of the last one."""
    count = characters = size = 0
    with (
        (folder / f"documents-{number}.jsonl").open("w", encoding="utf-8", newline="\n") as lines,
        ArrayFile(folder / f"keys-{number}.npy", KEY) as keys,
    ):
        for document in documents:
            position = (document.name, document.part or 0)
            if previous is not None and position <= previous:
                raise ValueError(
                    f"document {document.name!r} follows {previous[0]!r}: names must be distinct and sorted"
                )
            if len(document.text) > MAX_CHARACTERS:
                raise ValueError(
                    f"document {document.name!r} has {len(document.text):,} characters, more than {MAX_CHARACTERS:,};"
                    " cut it into several documents"
                )
            entry: dict[str, Any] = {"name": document.name, "text": document.text}
            if document.part is not None:
                entry |= {"part": document.part, "unfinished": document.unfinished}
            lines.write(json.dumps(entry, ensure_ascii=False) + "\n")
            keys.append(np.array([document.key()], dtype=KEY))
            previous = position
            count += 1
            characters += len(document.text)
            size += len(document.text.encode())
            if size >= SHARD_BYTES:
                break
    return {"documents": count, "characters": characters, "bytes": size}, previous


def _write_images(folder: Path, number: str, batches: Iterator[ImageBatch]) -> dict[str, Any]:
    """Write the images that fit into a shard; return its counts."""
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


def _describe_images(shards: list[dict[str, Any]]) -> dict[str, Any]:
    """Move what all images have in common out of the shards, and return it."""
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
                f"images of {first['shape']} are followed by images of {shard['shape']} (height, width, channels);"
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


def _check_labels(results: Sequence[ShardResult], stated: int) -> None:
    """Check that labels are class numbers and not ids: a network has weights for every number up to the largest.

    If the source states its classes, some of them may have no images.
    """
    files = [file for result in results for file in sorted(result.folder.glob("labels-*.npy"))]
    if not files:
        return
    found = np.unique(np.concatenate([np.unique(np.load(file, allow_pickle=False)) for file in files]))
    if stated and found[-1] >= stated:
        raise ValueError(f"an image has the label {found[-1]}, but the source has the classes 0 to {stated - 1}")
    if not stated and found[-1] >= len(found):
        missing = int(np.flatnonzero(found != np.arange(len(found)))[0])
        raise ValueError(
            f"labels are not consecutive from 0: there are {len(found):,} different ones from {found[0]} to"
            f" {found[-1]}, and no image has {missing}; number the classes, for example with"
            " `numpy.unique(labels, return_inverse=True)[1]`, or set the source's `labels` (or `label_column`)"
            " in params.yaml to null"
        )


def _check_expected(shards: Sequence[Mapping[str, Any]], counts: Counter[str], expected: Mapping[str, int]) -> None:
    found = Counter[str](characters=sum(shard.get("characters", 0) for shard in shards))
    for shard in shards:
        found[str(shard["split"])] += shard["images"] if "images" in shard else shard["documents"]
    # Other counts, such as of rotated images, change no number.
    complete = not any(what.endswith(("left out", "replaced")) for what in counts)
    for what, count in expected.items():
        if complete and found[what] != count and (what == "characters" or what in found):
            raise ValueError(
                f"{what} should be {count:,} by the catalog, and there are {found[what]:,}: this is not the published"
                " data set. To use it anyway, copy the settings that `mdpipe datasets NAME` prints into a source of"
                " your own in params.yaml"
            )
