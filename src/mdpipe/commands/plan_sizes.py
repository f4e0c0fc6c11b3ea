"""Sizes of sources before anything runs: exact if they are in data/, else from the catalog's counts.

Local text files are estimated from what `plan_texts` reads of them. All other sizes are unknown until the data is
downloaded: nothing is asked for in the network.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from mdpipe.commands.plan_texts import FileSource, TextSize, choose_texts, text_sizes
from mdpipe.data.artifacts.files import read_json
from mdpipe.file_formats import COMPRESSED
from mdpipe.params import sources
from mdpipe.params.catalog import find_entry
from mdpipe.params.sources import Source
from mdpipe.pipeline import paths

PREFIXES = ("", "k", "M", "G", "T", "P", "E", "Z", "Y")
MIN_HOURS = 0.01
ZIP_RATIO, PARQUET_RATIO = 0.31, 0.6
"""Bytes downloaded per byte of text: 31,344,016 for the 100,000,000 of text8, 24 GB for OpenWebText's 40 in parquet."""
DIGITS, PHOTOS, PHOTO_EDGES = 1797, 2, (427, 640)
"""Images that come with scikit-learn."""
GRAY = ("mnist", "fashion_mnist")
"""Datasets of the catalog with one channel; all others have three."""

Shape = tuple[int, ...]


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

    def ceil_times(self, factor: Fraction) -> "Estimate":
        """Return ceil(factor * n), without the rounding errors of floats."""
        return self if self.is_unknown else Estimate(math.ceil(factor * Fraction(self.value)), self.is_guess)

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
            return f"{'~' * self.is_guess}{_round(self.value, 2)} h"  # The hardware is a guess: two digits.
        power = 0
        while power + 1 < len(PREFIXES) and float(f"{self.value / 1000**power:.3g}") >= 1000:
            power += 1
        text = f"{_round(self.value / 1000**power, 3)} {PREFIXES[power]}{unit}"
        return f"{'~' * self.is_guess}{text.rstrip()}"


NOTHING, UNKNOWN = Estimate(), Estimate(math.nan)


def total(estimates: Iterable[Estimate]) -> Estimate:
    """Return the sum."""
    return sum(estimates, NOTHING)


@dataclass(frozen=True)
class SourceSize:
    """The size of a source."""

    amounts: Mapping[str | None, Estimate]
    """Characters or images in each split of the source; the key is None if the source has no splits."""
    shape: Shape | None
    """(H, W, C) of its images, if known."""
    classes: int
    """Number of classes; 0 if there are none or it is unknown."""
    content: Estimate
    """Bytes of text or pixels."""
    disk: Estimate
    """Bytes of data/raw/SOURCE."""
    documents: Mapping[str | None, Estimate] = field(default_factory=dict)
    """Documents in each split of the source; empty if that is unknown, and for images."""
    texts: tuple[str, ...] = ()
    """Texts from all over the source, to count tokens of."""
    note: str = ""
    """How much of the files the estimates rest on, or why there are none; empty if it is all or unknown."""


def source_size(name: str, source: Source, is_outdated: bool) -> SourceSize:
    """Return the size of a source, read from data/raw if that is up to date, else estimated from the settings."""
    if not is_outdated and (header := read_header(paths.raw(name) / "source.json")) is not None:
        amounts: dict[str | None, Estimate] = {}
        documents: dict[str | None, Estimate] = {}
        for shard in header["shards"]:
            count = Estimate(shard["images"] if "images" in shard else shard["characters"])
            amounts[shard["split"]] = amounts.get(shard["split"], NOTHING) + count
            if "documents" in shard:
                documents[shard["split"]] = documents.get(shard["split"], NOTHING) + Estimate(shard["documents"])
        shape = tuple(header["shape"]) if "shape" in header else None
        content = Estimate(header["bytes"]) if shape is None else total(amounts.values()) * math.prod(shape)
        disk = Estimate(folder_size(paths.raw(name)))
        texts = _raw_texts(paths.raw(name)) if documents else ()
        return SourceSize(amounts, shape, header.get("classes", 0), content, disk, documents, texts)
    if (files := _as_files(source.resolve())) is not None:
        return _files_size(name, files)
    amounts, shape, classes = _known_amounts(source)
    bytes_per_unit: float = 1
    if source.modality == "image":
        bytes_per_unit = math.nan if shape is None else math.prod(shape)
    content = (total(amounts.values()) * bytes_per_unit).estimated()
    note = ""
    if isinstance(source.resolve(), sources.UrlSource) and content.is_unknown:
        note = f"sources.{name}: the size of what is at a URL is unknown before its download"
    return SourceSize(amounts, shape, classes, content, content, note=note)


def _as_files(source: Source) -> FileSource | None:
    """Return a source of text files, or the file of a URL that was downloaded; None for another source."""
    match source:
        case sources.TextSource() | sources.JsonLinesSource() | sources.CsvSource():
            return source
        case sources.UrlSource(member=None) if (file := _downloaded(source)).exists():
            settings = source.model_dump(include={"empty_documents", "detokenizer", "decode_errors"})
            if source.field is not None:
                return sources.JsonLinesSource(path=str(file), field=source.field, **settings)
            return sources.TextSource(path=str(file), sample_by=source.sample_by, **settings)
    return None


def _downloaded(source: sources.UrlSource) -> Path:
    """Return where the download of a URL is, or will be."""
    from mdpipe.data.sources.download import destination

    return destination(source.url, paths.DOWNLOADS)


def _files_size(name: str, source: FileSource) -> SourceSize:
    """Return the size of text files, from as much as `text_sizes` reads of them; unknown if they cannot be read."""
    try:
        sizes = text_sizes(source)
    except (ValueError, OSError):  # There are no such files, or `download` will say what is wrong with them.
        found = Path(source.path).exists()
        note = f"sources.{name}: its files have an unknown size, since part of them cannot be read" if found else ""
        return SourceSize({None: UNKNOWN}, None, 0, UNKNOWN, UNKNOWN, note=note)

    def by_split(attribute: str) -> dict[str | None, Estimate]:
        # Text of exactly this many characters is still a guess: a reader may change it.
        return {split: Estimate(round(getattr(size, attribute)), is_guess=True) for split, size in sizes.items()}

    return SourceSize(
        amounts=by_split("characters"),
        shape=None,
        classes=0,
        content=total(by_split("content").values()),
        disk=total(by_split("disk").values()),
        documents=by_split("documents"),
        texts=choose_texts([text for size in sizes.values() for text in size.texts]),
        note=_sampling_note(name, sizes.values()),
    )


def _sampling_note(name: str, sizes: Iterable[TextSize]) -> str:
    """Return how much of the files was read; empty if it is all."""
    size, unread = sum(size.size for size in sizes), sum(size.unread for size in sizes)
    if not unread:
        return ""
    read = Estimate(size - unread).format("B")
    return f"sources.{name}: estimated from {read} of {Estimate(size).format('B')}; may be off by a quarter"


def _raw_texts(folder: Path) -> tuple[str, ...]:
    """Return texts from all over a raw folder."""
    source = sources.JsonLinesSource(path=str(folder), pattern="documents-*.jsonl", empty_documents="keep")
    [size] = text_sizes(source).values()
    return choose_texts(size.texts)


def _known_amounts(source: Source) -> tuple[dict[str | None, Estimate], Shape | None, int]:
    """Return amounts, shape and classes as the catalog or the settings state them."""
    found, shape, classes = source.resolve(), None, 0
    if isinstance(found, sources.NpzFlatSource):
        channels, height, width = found.shape
        shape, classes = (height, width, channels), found.labels.num_classes if found.labels else 0
    if isinstance(source, sources.CatalogSource):
        facts = find_entry(source.name)
        counts = {split: Estimate(count) for split, count in (facts.counts or {}).items()}
        if edge := getattr(found, "resize", None) or (facts.dataset or {}).get("image_size"):
            shape = (edge, edge, 1 if source.name in GRAY else 3)
        if not facts.splits:
            return {None: counts.get("characters", UNKNOWN)}, None, 0
        is_image = facts.modality == "image"  # The counts of a text's splits are documents.
        return {split: counts.get(split, UNKNOWN) if is_image else UNKNOWN for split in facts.splits}, shape, classes
    match found:
        case sources.DigitsSource():
            return {None: Estimate(DIGITS)}, (8, 8, 1), 10
        case sources.PhotosSource(region=edge):
            squares = math.prod(length // edge for length in PHOTO_EDGES)
            return {None: Estimate(PHOTOS * squares)}, (edge, edge, 3), 0
    return {None: UNKNOWN}, shape, classes


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


def folder_size(path: Path) -> int:
    """Return the bytes of a file, or of all files of a folder."""
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())


def read_header(path: Path) -> dict[str, Any] | None:
    """Read the header of a folder in data/, or return None if it does not exist yet.

    Raises:
        ValueError: it is invalid.
    """
    return read_json(path, f"remove {path.parent}, and plan without it") if path.exists() else None


def _round(value: float, digits: int) -> str:
    """Return a number with this many significant digits, without an exponent."""
    places = max(0, digits - 1 - math.floor(math.log10(value)))
    text = f"{float(f'{value:.{digits}g}'):,.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
