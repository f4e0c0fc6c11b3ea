"""Sizes of sources before anything runs: exact if they are in data/, else from the catalog or the user's own files.

Local text is estimated from a sample, the beginning of some of its files. The source's own reader turns it into
documents, so columns that are not read, quotes, escapes, and documents that are left out count as in the `download`
stage. Image files and rows of tables are counted. All other sizes are unknown until the download: nothing is asked for
in the network.
"""

import json
import math
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import numpy as np

from mdpipe.data.artifacts.files import folder_size, read_json
from mdpipe.data.raw import KEY, Document, RawShard, raw_shards
from mdpipe.data.sources.csv import open_csv
from mdpipe.data.sources.files import (
    SourceFile,
    compression,
    find_files,
    open_decompressed,
    refuse_other_formats,
)
from mdpipe.data.sources.text import last_gap, text_shards
from mdpipe.file_formats import COMPRESSED
from mdpipe.params import sources
from mdpipe.params.catalog import find_entry
from mdpipe.params.sources import CsvSource, JsonLinesSource, ParquetSource, Source, TextSource, UrlSource
from mdpipe.pipeline import paths

PREFIXES = ("", "k", "M", "G", "T", "P", "E", "Z", "Y")
MIN_HOURS = 0.01
ZIP_RATIO, PARQUET_RATIO = 0.31, 0.6
"""Bytes downloaded per byte of text: 31,344,016 for the 100,000,000 of text8, 24 GB for OpenWebText's 40 in parquet."""
DIGITS, PHOTOS, PHOTO_EDGES = 1797, 2, (427, 640)
"""Images that come with scikit-learn."""
MAX_FILES, SAMPLED_BYTES, SAMPLED_ROWS = 16, 2**20, 512
"""Most files that are read of a source, and about how many bytes, or rows of tables, of all of them."""
DENSITY = {".gz": 1, ".bz2": 1.3, ".xz": 1.3, ".zst": 1}
"""Bytes of English text per compressed byte, relative to zlib's."""
GRAY = ("mnist", "fashion_mnist")
"""Datasets of the catalog with one channel; all others have three."""

Shape = tuple[int, ...]
LocalText = TextSource | JsonLinesSource | CsvSource | ParquetSource | UrlSource


@dataclass(frozen=True)
class Estimate:
    """A number that may be a guess, or unknown (NaN); sums and products keep both."""

    value: float = 0
    is_guess: bool = False

    @property
    def is_unknown(self) -> bool:
        """True for NaN."""
        return math.isnan(self.value)

    def __add__(self, other: "Estimate") -> "Estimate":
        return Estimate(self.value + other.value, self.is_guess or other.is_guess)

    def __mul__(self, factor: "Estimate | float") -> "Estimate":
        by = factor if isinstance(factor, Estimate) else Estimate(factor)
        return Estimate(self.value * by.value, self.is_guess or by.is_guess)

    def estimated(self, is_guess: bool = True) -> "Estimate":
        """Return the same number, marked as a guess if `is_guess`; 0 is always exact."""
        return Estimate(self.value, self.is_guess or (is_guess and self.value != 0))

    def format(self, unit: str = "") -> str:
        """Return text such as `1.54 MB`, `12 h` or, for a guess, `~12 h`; `?` for unknown and `-` for 0."""
        if self.is_unknown or not self.value:
            return "?" if self.is_unknown else "-"
        if unit == "h":
            if self.value < MIN_HOURS:
                return f"<{MIN_HOURS} h"
            hours = float(f"{self.value:.2g}")  # The hardware is a guess: two digits.
            return f"{'~' * self.is_guess}{hours:,.12g} h"
        power = 0
        while power + 1 < len(PREFIXES) and float(f"{self.value / 1000**power:.3g}") >= 1000:
            power += 1
        return f"{'~' * self.is_guess}{self.value / 1000**power:.3g} {PREFIXES[power]}{unit}".rstrip()


NOTHING, UNKNOWN = Estimate(), Estimate(math.nan)


def total(estimates: Iterable[Estimate]) -> Estimate:
    """Return the sum."""
    return sum(estimates, NOTHING)


@dataclass(frozen=True)
class SourceSize:
    """The size of a source."""

    amounts: Mapping[str | None, Estimate]
    """Characters or images in each split of the source; the key is None if the source has no splits."""
    content: Estimate
    """Bytes of text or pixels."""
    disk: Estimate
    """Bytes of data/raw/SOURCE."""
    shape: Shape | None = None
    """(H, W, C) of the images, if known."""
    classes: int = 0
    """Number of classes; 0 if there are none or it is unknown."""
    document_length: float = math.inf
    """Characters per document of a text; infinite if unknown."""
    texts: Sequence[str] = ()
    """A sample of a text, to count tokens per character."""
    note: str = ""
    """How much of the files the estimate rests on, or why there is none."""


def source_size(name: str, source: Source, is_outdated: bool) -> SourceSize:
    """Return the size of a source, read from data/raw if that is up to date, else estimated.

    Raises:
        ValueError: the folder in data/raw is broken.
    """
    if not is_outdated and (paths.raw(name) / "source.json").exists():
        return _stored_size(paths.raw(name), source)
    size, found = _stated_size(source), source.resolve()
    if not size.content.is_unknown:
        return size
    try:
        match found:
            case sources.UrlSource() if found.member or not _downloaded(found).exists():
                note = f"sources.{name}: the size of what is at a URL is unknown before its download"
                return replace(size, note=note)
            case sources.UrlSource():
                return _text_size(name, found, [SourceFile(_downloaded(found).name, _downloaded(found), None)])
            case sources.ImageFolderSource() | sources.ParquetImagesSource():
                return _images_size(found, find_files(Path(found.path), found.pattern))
            case sources.TextSource() | sources.JsonLinesSource() | sources.CsvSource() | sources.ParquetSource():
                files = find_files(Path(found.path), found.pattern)
                refuse_other_formats(files, found.kind)
                return _text_size(name, found, files)
    except (ValueError, OSError) as error:
        if Path(found.path).exists():  # A path that does not exist is named anyway.
            return replace(size, note=f"sources.{name} has an unknown size: {error}")
    return size


def _stored_size(folder: Path, source: Source) -> SourceSize:
    """Return the size of a source in data/raw."""
    header = read_json(folder / "source.json", f"remove {folder}, and plan without it")
    shards, disk = raw_shards(folder, source.modality), Estimate(folder_size(folder))
    if source.modality == "image":
        amounts, shape = _by_split(shards, [shard.count for shard in shards]), tuple(header["shape"])
        return SourceSize(amounts, total(amounts.values()) * math.prod(shape), disk, shape, header["classes"])
    amounts = _by_split(shards, [shard.characters for shard in shards])
    lines = sources.JsonLinesSource(path=str(folder), empty_documents="keep")
    sample, _ = read_sample(lines, find_files(folder, "documents-*.jsonl"))
    texts, length = [document.text for document in sample], header["characters"] / max(header["documents"], 1)
    return SourceSize(amounts, Estimate(header["bytes"]), disk, document_length=length, texts=texts)


def _stated_size(source: Source) -> SourceSize:
    """Return the size that the catalog or the settings state; most state none."""
    found, shape, classes = source.resolve(), None, 0
    amounts: dict[str | None, Estimate] = {None: UNKNOWN}
    match found:
        case sources.NpzFlatSource(shape=(channels, height, width), labels=labels):
            shape, classes = (height, width, channels), labels.num_classes if labels else 0
        case sources.DigitsSource():
            amounts, shape, classes = {None: Estimate(DIGITS)}, (8, 8, 1), 10
        case sources.PhotosSource(region=edge):
            squares = math.prod(length // edge for length in PHOTO_EDGES)
            amounts, shape = {None: Estimate(PHOTOS * squares)}, (edge, edge, 3)
    if isinstance(source, sources.CatalogSource):
        entry = find_entry(source.name)
        # Counts of a text with splits are documents.
        counts = entry.counts if entry.counts and (entry.modality == "image" or not entry.splits) else {}
        amounts = {split: Estimate(counts.get(split, math.nan)) for split in entry.splits}
        amounts = amounts or {None: Estimate(counts.get("characters", math.nan))}
        if size := getattr(found, "resize", None) or (entry.dataset or {}).get("image_size"):
            shape = (size, size, 1 if source.name in GRAY else 3)
    bytes_each = 1 if source.modality == "text" else math.prod(shape or (math.nan,))
    content = (total(amounts.values()) * bytes_each).estimated()
    return SourceSize(amounts, content, content, shape, classes)


def _images_size(
    source: sources.ImageFolderSource | sources.ParquetImagesSource, files: Sequence[SourceFile]
) -> SourceSize:
    """Count image files or rows of tables; all images must have the shape of the first."""
    from mdpipe.data.sources.images import decode_image
    from mdpipe.data.sources.tables import count_rows, first_image

    first: Path | bytes
    if isinstance(source, sources.ParquetImagesSource):
        amounts, first = _by_split(files, [count_rows(file.path) for file in files]), first_image(source, files[0])
    else:
        amounts, first = _by_split(files, [1] * len(files)), files[0].path
    shape = decode_image(first, str(files[0].path), Counter(), source.mode, source.resize).shape
    content = total(amounts.values()) * math.prod(shape)
    return SourceSize(amounts, content, content.estimated(), shape)


def _text_size(name: str, source: LocalText, files: Sequence[SourceFile]) -> SourceSize:
    """Estimate the size of local text: that of a sample, times the size of the files relative to it."""
    sample, factors = read_sample(source, files)
    texts, factor = [document.text for document in sample], sum(factors)
    characters, is_whole = sum(map(len, texts)), getattr(source, "sample_by", "line") == "document"
    return SourceSize(
        _by_split(files, [characters * factor for factor in factors], is_guess=True),
        content=Estimate(sum(len(text.encode()) for text in texts) * factor, is_guess=True),
        disk=Estimate(sum(map(_raw_bytes, sample)) * factor, is_guess=True),
        document_length=characters * factor / max(len(files) if is_whole else len(texts) * factor, 1),
        texts=texts,
        note=f"sources.{name}: estimated from {1 / factor:.2%} of its text" if round(factor, 4) > 1 else "",
    )


def _raw_bytes(document: Document) -> int:
    """Return the bytes of a document in data/raw, with its line end and key."""
    entry = {"name": document.name, "text": document.text}
    return len(json.dumps(entry, ensure_ascii=False).encode()) + 1 + KEY.itemsize


def _by_split(
    items: Iterable[SourceFile | RawShard], numbers: Iterable[float], *, is_guess: bool = False
) -> dict[str | None, Estimate]:
    """Return the sum of the numbers of the files or shards in each split."""
    sums: dict[str | None, Estimate] = {}
    for item, number in zip(items, numbers, strict=True):
        sums[item.split] = sums.get(item.split, NOTHING) + Estimate(number, is_guess)
    return sums


def _downloaded(source: sources.UrlSource) -> Path:
    """Return where the download of a URL is, or will be."""
    from mdpipe.data.sources.download import destination

    return destination(source.url, paths.DOWNLOADS)


def download_size(source: Source, content: Estimate) -> Estimate:
    """Estimate the bytes to download for a source; unknown for images that will be resized."""
    match source.resolve():
        case sources.UrlSource() as found if _downloaded(found).exists():
            return NOTHING
        case sources.UrlSource(url=url, member=member):
            return content * (ZIP_RATIO if member or url.endswith(COMPRESSED) else 1)
        case sources.HuggingFaceSource(name=name, modality="text") if not Path(name).is_dir():
            return content * PARQUET_RATIO
        case sources.HuggingFaceSource(name=name, resize=resize) if not Path(name).is_dir():
            return content if resize is None else UNKNOWN
    return NOTHING


def read_sample(source: LocalText, files: Sequence[SourceFile]) -> tuple[list[Document], list[float]]:
    """Return some documents, and the size of each file relative to that of all these documents.

    Raises:
        ValueError: a file that was read is broken.
    """
    if isinstance(source, ParquetSource):
        from mdpipe.data.sources.tables import count_rows

        sizes = [count_rows(file.path) for file in files]
    else:
        sizes = [file.size for file in files]
    # At evenly spaced positions in all of them, so that large files are not missed.
    positions = (np.arange(MAX_FILES) + 0.5) / MAX_FILES * sum(sizes)
    chosen = [files[number] for number in np.unique(np.searchsorted(np.cumsum(sizes), positions))]
    sample, read = list[Document](), 0.0
    for file in chosen:
        if isinstance(source, ParquetSource):
            documents, size = _first_rows(source, file, SAMPLED_ROWS // len(chosen))
        else:
            documents, size = _first_lines(source, file, SAMPLED_BYTES // len(chosen))
        sample, read = sample + documents, read + size
    return sample, [size / max(read, 1) for size in sizes]


def _first_rows(source: ParquetSource, file: SourceFile, limit: int) -> tuple[list[Document], float]:
    """Return the first documents of a table, at most `limit`, and how many of its rows they take."""
    from mdpipe.data.sources.tables import open_parquet

    shard, counts = open_parquet(source.model_copy(update={"path": str(file.path)}))[0], Counter[str]()
    return list(islice(cast("Iterator[Document]", shard.read(counts)), limit)), counts["rows"]


def _first_lines(
    source: TextSource | JsonLinesSource | CsvSource | UrlSource, file: SourceFile, limit: int
) -> tuple[list[Document], float]:
    """Return the documents in about the first `limit` bytes of a file, and how many of its bytes they take."""
    with open_decompressed(file.path) as stream:
        head = stream.read(limit) + stream.readline(limit)
        is_cut = bool(stream.read(1))
    suffix, size, documents = compression(file.path) or "", float(file.size), list[Document]()
    if is_cut:
        head = head[: last_gap(head)]
        size = len(zlib.compress(head)) / DENSITY[suffix] if suffix else len(head)
    with TemporaryDirectory() as folder:
        path = Path(folder, file.path.name.removesuffix(suffix))
        path.write_bytes(head)
        try:
            if isinstance(source, CsvSource):
                [shard] = open_csv(source.model_copy(update={"path": str(path)}))
            else:
                [shard] = text_shards(source, [SourceFile(file.name, path, None)])
            for document in cast("Iterator[Document]", shard.read(Counter())):
                documents.append(document)
        except ValueError as error:
            if not (is_cut and documents):
                raise ValueError(str(error).replace(str(path), str(file.path))) from None
            # The last row is cut within quotes: half of one is lost, on average.
            size *= len(documents) / (len(documents) + 0.5)
    return documents, size
