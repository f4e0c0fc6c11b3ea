"""How much there is of a source, before it is fetched and as far as is known.

What lies under data/raw is taken as it is; else the user's own files say it by their sizes, what comes with the
packages by its content, and what is fetched by the counts that the catalogue has.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mdpipe.data.artifacts.stable_json import read_json
from mdpipe.file_formats import COMPRESSED
from mdpipe.params.catalogue import entry
from mdpipe.params.sources import (
    Arrays,
    Catalogued,
    Csv,
    Digits,
    Docstrings,
    Hub,
    HubImages,
    Idx,
    ImageFolder,
    JsonLines,
    Photos,
    PlanarArrays,
    Resized,
    Source,
    Table,
    TextFiles,
    Url,
    has_classes,
    modality_of_source,
    resolved,
)
from mdpipe.stages import paths
from mdpipe.stages.plan_figures import NOTHING, UNKNOWN, Figure, total

PACKED = 0.31
"""Bytes of a packed text for every byte of it: text8.zip has 31,344,016 for 100,000,000 letters."""
PARQUET = 0.6
"""The same for the parquet files of a hub: OpenWebText's have 24 GB for 40."""
KEY_BYTES = 64
"""What decides a document's or picture's split, kept beside its content."""
LABEL_BYTES = 8

Shape = tuple[int, int, int]
"""(H, W, C) of pictures."""
DIGITS, DIGIT_CLASSES, DIGIT_SHAPE = 1797, 10, (8, 8, 1)
PHOTOS, PHOTO_EDGES = 2, (427, 640)
"""What comes with scikit-learn."""
GREY = {"mnist", "fashion_mnist"}
"""Data sets of the catalogue with one channel; all others have three."""
RGB = 3


@dataclass(frozen=True)
class Part:
    """What a source has in one of its own splits."""

    units: Figure
    """Documents, or pictures."""
    amount: Figure
    """Characters of text; of pictures their number again."""


Parts = Mapping[str | None, Part]
"""By the source's own splits; None where it has none."""
NOT_KNOWN = Part(UNKNOWN, UNKNOWN)


@dataclass(frozen=True)
class Material:
    """What is known of a source."""

    parts: Parts
    content: Figure
    """Bytes of its text or pixels."""
    disk: Figure
    """Bytes of data/raw/SOURCE."""
    shape: Shape | None
    """Of its pictures, where that is known."""
    classes: int
    """0 where it has none, or nothing says how many."""

    @property
    def amount(self) -> Figure:
        """Characters, or pictures, in all."""
        return total(part.amount for part in self.parts.values())


def material_of(name: str, source: Source, is_outdated: bool = False) -> Material:
    """What is known of a source; of its raw folder nothing is taken where that is of an older definition of it.

    The disk that it will take is its content and for every document or picture a key, for a picture perhaps a label.
    """
    folder = paths.raw(name)
    if not is_outdated and (header := read_header(folder / "source.json")) is not None:
        shape = tuple(header["shape"]) if "shape" in header else None
        parts = _measured(header["shards"])
        content = Figure(header["bytes"]) if shape is None else _pixels(parts, shape)
        return Material(parts, content, Figure(folder_size(folder)), shape, header.get("classes", 0))
    parts, shape = _parts(source)
    if modality_of_source(source) == "image":
        content = _pixels(parts, shape)
    else:
        content = total(part.amount for part in parts.values()).roughly()
    units = total(part.units for part in parts.values())
    beside = NOTHING if units.unknown else units * (KEY_BYTES + LABEL_BYTES * has_classes(source))
    return Material(parts, content, (content + beside).roughly(), shape, _classes(source))


def fetched(source: Source, content: Figure) -> Figure:
    """Bytes over the network: as many as the content has, PACKED times so many of an archive, PARQUET of a hub."""
    match resolved(source):
        case Url() as url:
            packed = url.member is not None or url.url.endswith(COMPRESSED)
            return (content * (PACKED if packed else 1)).roughly()
        case Hub() as hub if not Path(hub.name).is_dir():
            return (content * PARQUET).roughly()
        case HubImages() as hub if not Path(hub.name).is_dir():
            # What is made smaller here is fetched in the size that it has there.
            return content.roughly() if hub.resize is None else UNKNOWN
    return NOTHING


def channels(source: Source, found: Material) -> tuple[int, bool]:
    """Of its pictures, and whether that is a guess."""
    if found.shape is not None:
        return found.shape[2], False
    grey = isinstance(source, Idx) or (isinstance(source, Catalogued) and source.name in GREY)
    return 1 if grey else RGB, not isinstance(source, Idx | Catalogued)


def folder_size(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())


def read_header(path: Path) -> dict[str, Any] | None:
    """What a folder says of itself, or None where it is not there yet.

    Raises:
        ValueError: it is broken.
    """
    return read_json(path, f"remove {path.parent}, and plan without it") if path.exists() else None


def _measured(shards: list[dict[str, Any]]) -> Parts:
    """Of the shards of a raw folder."""
    parts: dict[str | None, Part] = defaultdict(lambda: Part(NOTHING, NOTHING))
    for shard in shards:
        units = Figure(shard["images"] if "images" in shard else shard["documents"])
        amount = Figure(shard["characters"]) if "characters" in shard else units
        so_far = parts[shard["split"]]
        parts[shard["split"]] = Part(so_far.units + units, so_far.amount + amount)
    return parts


def _parts(source: Source) -> tuple[Parts, Shape | None]:
    """Of a source that is not there yet, with the shape of its pictures where that is known."""
    if isinstance(source, Catalogued):
        return _published(source)
    match resolved(source):
        case Digits():
            return {None: _pictures(DIGITS)}, DIGIT_SHAPE
        case Photos() as photos:
            squares = PHOTOS * (PHOTO_EDGES[0] // photos.region) * (PHOTO_EDGES[1] // photos.region)
            return {None: _pictures(squares)}, (photos.region, photos.region, RGB)
        case Docstrings() as docstrings:
            return {None: _docstrings(docstrings.packages)}, None
        case TextFiles() | JsonLines() | Csv() | Table() as files:
            one_a_file = isinstance(files, TextFiles) and files.documents == "file"
            return _text_files(Path(files.path), files.pattern, one_a_file), None
        case ImageFolder() as folder:
            found = {split: _pictures(len(sizes)) for split, sizes in _sizes(folder.path, folder.pattern).items()}
            return found or {None: NOT_KNOWN}, None
        case Arrays() | Idx() as arrays:
            return _arrays(arrays)
        case PlanarArrays() as arrays:
            return _planar_arrays(arrays)
        case Hub() | HubImages() as hub:
            return dict.fromkeys(hub.splits, NOT_KNOWN), None
    return {None: NOT_KNOWN}, None


def _published(source: Catalogued) -> tuple[Parts, Shape | None]:
    """By the catalogue's counts: characters, or documents or pictures by split."""
    facts, found = entry(source.name), resolved(source)
    counts = facts.counts or {}
    if not facts.splits:
        return {None: Part(Figure(1), Figure(counts["characters"])) if "characters" in counts else NOT_KNOWN}, None
    known = {split: Figure(counts[split]) if split in counts else UNKNOWN for split in facts.splits}
    if facts.modality == "text":
        return {split: Part(count, UNKNOWN) for split, count in known.items()}, None
    edge = found.resize if isinstance(found, Resized) and found.resize else (facts.dataset or {}).get("size")
    shape = None if edge is None else (edge, edge, 1 if source.name in GREY else RGB)
    return {split: Part(count, count) for split, count in known.items()}, shape


def _docstrings(packages: list[str]) -> Part:
    """By reading them, as `download` does, in some seconds."""
    from mdpipe.data.sources.docstrings import read

    try:
        lengths = [len(document.text) for document in read(packages)]
    except ValueError:  # a package is not installed here
        return NOT_KNOWN
    return Part(Figure(len(lengths)), Figure(sum(lengths)))


def _text_files(path: Path, pattern: str | dict[str, str], one_a_file: bool) -> Parts:
    """A character a byte, and more where files are packed."""
    found = {
        split: Part(
            Figure(len(sizes)) if one_a_file else UNKNOWN,
            total(Figure(size / (PACKED if packed else 1), estimated=True) for size, packed in sizes),
        )
        for split, sizes in _sizes(str(path), pattern).items()
    }
    return found or {None: NOT_KNOWN}


def _sizes(path: str, pattern: str | dict[str, str]) -> dict[str | None, list[tuple[int, bool]]]:
    """Bytes of each file of a source, and whether it is packed, by split; nothing where the files are not here."""
    from mdpipe.data.sources.files import matching_files

    sizes: dict[str | None, list[tuple[int, bool]]] = defaultdict(list)
    try:
        for file in matching_files(Path(path), pattern):
            sizes[file.split].append((file.size, file.compressed))
    except ValueError:
        return {}
    return sizes


def _arrays(source: Arrays | Idx) -> tuple[Parts, Shape | None]:
    """By the first bytes of their files."""
    from mdpipe.data.sources.files import opened

    try:
        if isinstance(source, Arrays):
            if not source.path.endswith(".npy"):
                return {None: NOT_KNOWN}, None
            count, height, width, *channel = np.load(source.path, mmap_mode="r").shape
            return {None: _pictures(count)}, (height, width, channel[0] if channel else 1)
        named = {None: source.images} if isinstance(source.images, str) else source.images
        parts: dict[str | None, Part] = {}
        for split, name in named.items():
            with opened(Path(source.path) / name) as stream:
                count, height, width = np.frombuffer(stream.read(16)[4:], dtype=">u4").tolist()
            parts[split] = _pictures(count)
        return parts, (height, width, 1)
    except (OSError, ValueError, OverflowError, TypeError):  # not here, or something else
        return {None: NOT_KNOWN}, None


def _planar_arrays(source: PlanarArrays) -> tuple[Parts, Shape]:
    """By the headers of their files."""
    from mdpipe.data.sources.files import matching_files
    from mdpipe.data.sources.npz_rows import opened_arrays

    channels, height, width = source.shape
    counts: dict[str | None, int] = defaultdict(int)
    try:
        for found in matching_files(Path(source.path), source.pattern):
            with opened_arrays(found.file, [source.field]) as [pixels]:
                counts[found.split] += pixels.shape[0]
    except ValueError:  # not here, or something else
        return {None: NOT_KNOWN}, (height, width, channels)
    return {split: _pictures(count) for split, count in counts.items()}, (height, width, channels)


def _classes(source: Source) -> int:
    """How many there are, where the source itself says so."""
    match resolved(source):
        case Digits():
            return DIGIT_CLASSES
        case PlanarArrays(labels=labels) if labels is not None:
            return labels.classes
    return 0


def _pictures(count: int) -> Part:
    return Part(Figure(count), Figure(count))


def _pixels(parts: Parts, shape: Shape | None) -> Figure:
    """Bytes of all pictures."""
    pictures = total(part.amount for part in parts.values())
    return UNKNOWN if shape is None else pictures * int(np.prod(shape))
