"""Sizes of sources and datasets before anything runs: exact if they are in data/, else from the catalog's counts.

Local text files are estimated at one character per byte. All other sizes are unknown until the data is downloaded.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mdpipe.data.artifacts.files import read_header as read_typed_header
from mdpipe.data.artifacts.files import read_json
from mdpipe.data.dataset import DatasetHeader
from mdpipe.file_formats import COMPRESSED
from mdpipe.params import data, sources
from mdpipe.params.catalog import find_entry
from mdpipe.params.data import ImageDataset, SplitSpec, TextDataset
from mdpipe.params.sources import Source
from mdpipe.pipeline import paths

if TYPE_CHECKING:
    from mdpipe.data.sources.files import SourceFile

PREFIXES = ("", "k", "M", "G", "T", "P", "E", "Z", "Y")
MIN_HOURS = 0.01
ZIP_RATIO, PARQUET_RATIO = 0.31, 0.6
"""Bytes downloaded per byte of text: 31,344,016 for the 100,000,000 of text8, 24 GB for OpenWebText's 40 in parquet."""
CHARACTERS_PER_TOKEN = 4.3
"""Characters per token of English text, for GPT-2's vocabulary or a similar one."""
GPT2_VOCABULARY, GPT2_BYTES = 50_257, 1_042_301 + 456_318
"""GPT-2's tokens, and the bytes of its vocab.json and merges.txt."""
LINE_BYTES = 112
"""Bytes in data/raw of a line that is a document, besides its text: its key of 64 and its name in JSON."""
SAMPLED_BYTES = 2**20
"""Read of a file to estimate the number of its lines."""
DIGITS, PHOTOS, PHOTO_EDGES = 1797, 2, (427, 640)
"""Images that come with scikit-learn."""
GRAY = ("mnist", "fashion_mnist")
"""Datasets of the catalog with one channel; all others have three."""

AnyDataset = TextDataset | ImageDataset
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


def source_size(name: str, source: Source, is_outdated: bool) -> SourceSize:
    """Return the size of a source, read from data/raw if that is up to date, else estimated from the settings."""
    if not is_outdated and (header := read_header(paths.raw(name) / "source.json")) is not None:
        amounts: dict[str | None, Estimate] = {}
        for shard in header["shards"]:
            count = Estimate(shard["images"] if "images" in shard else shard["characters"])
            amounts[shard["split"]] = amounts.get(shard["split"], NOTHING) + count
        shape = tuple(header["shape"]) if "shape" in header else None
        content = Estimate(header["bytes"]) if shape is None else total(amounts.values()) * math.prod(shape)
        disk = Estimate(folder_size(paths.raw(name)))
        return SourceSize(amounts, shape, header.get("classes", 0), content, disk)
    amounts, shape, classes = _known_amounts(source)
    bytes_per_unit: float = 1
    if source.modality == "image":
        bytes_per_unit = math.nan if shape is None else math.prod(shape)
    content = (total(amounts.values()) * bytes_per_unit).estimated()
    return SourceSize(amounts, shape, classes, content, content + (_num_lines(source) * LINE_BYTES).estimated())


def _known_amounts(source: Source) -> tuple[dict[str | None, Estimate], Shape | None, int]:
    """Return amounts, shape and classes as the catalog, the settings or the sizes of text files state them."""
    found, shape, classes = source.resolve(), None, 0
    if isinstance(found, sources.NpzFlatSource):
        channels, height, width = found.shape
        shape, classes = (height, width, channels), found.labels.num_classes if found.labels else 0
    if isinstance(source, sources.CatalogSource):
        facts = find_entry(source.name)
        counts = {split: Estimate(count) for split, count in (facts.counts or {}).items()}
        if edge := getattr(found, "resize", None) or (facts.dataset or {}).get("size"):
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
        case sources.TextSource() | sources.JsonLinesSource() | sources.CsvSource():
            return _file_sizes(found.path, found.pattern), None, 0
    return {None: UNKNOWN}, shape, classes


def _file_sizes(path: str, pattern: str | dict[str, str]) -> dict[str | None, Estimate]:
    """Return one character per byte for the text files of a source, by split; unknown if one is compressed."""
    from mdpipe.data.sources.files import find_files

    amounts: dict[str | None, Estimate] = {}
    try:
        for file in find_files(Path(path), pattern):
            size = UNKNOWN if file.is_compressed else Estimate(file.size, is_guess=True)
            amounts[file.split] = amounts.get(file.split, NOTHING) + size
    except ValueError:  # The files do not exist.
        return {None: UNKNOWN}
    return amounts


def _num_lines(source: Source) -> Estimate:
    """Return the number of lines of the text files of a source whose documents are lines, and 0 for other sources."""
    from mdpipe.data.sources.files import find_files

    if not isinstance(source, sources.TextSource) or source.sample_by != "line":
        return NOTHING
    try:
        files = find_files(Path(source.path), source.pattern)
    except ValueError:  # The files do not exist.
        return UNKNOWN
    return total(_lines_of(file) for file in files)


def _lines_of(file: "SourceFile") -> Estimate:
    """Estimate the lines of a file from its start; unknown if it is compressed."""
    if file.is_compressed:
        return UNKNOWN
    with file.path.open("rb") as stream:
        start = stream.read(SAMPLED_BYTES)
    lines = max(start.count(b"\n"), 1)
    return Estimate(lines * file.size / max(len(start), 1), is_guess=True)


def download_size(source: Source, content: Estimate) -> Estimate:
    """Estimate the bytes to download for a source; unknown for images that will be resized."""
    match source.resolve():
        case sources.UrlSource(url=url, member=member):
            return content * (ZIP_RATIO if member or url.endswith(COMPRESSED) else 1)
        case sources.HuggingFaceSource(name=name, modality="text") if not Path(name).is_dir():
            return content * PARQUET_RATIO
        case sources.HuggingFaceSource(name=name, resize=resize) if not Path(name).is_dir():
            return content if resize is None else UNKNOWN
    return NOTHING


@dataclass(frozen=True)
class DatasetSize:
    """The size of a dataset."""

    tokens: Mapping[str, Estimate]
    """By split."""
    disk: Estimate
    """Bytes of data/encoded/DATASET."""
    shape: Shape
    """(L,) or (H, W, C)."""
    vocab_size: int | None
    """None if the tokenizer is not downloaded yet."""
    classes: int
    """Number of classes; 0 if there are none or it is unknown."""
    is_guess: bool
    """True if the number of channels or classes is a guess."""

    @property
    def length(self) -> int:
        """Tokens per example."""
        return math.prod(self.shape)

    def examples(self, tokens: Estimate) -> Estimate:
        """Return the number of examples that the tokens fill; the last one may be shorter."""
        return tokens.ceil_times(Fraction(1, self.length))


def dataset_size(name: str, dataset: AnyDataset, source: Source, size: SourceSize, is_outdated: bool) -> DatasetSize:
    """Return the size of a dataset, read from data/encoded if that is up to date, else estimated from its source."""
    folder, vocab_size = paths.encoded(name), find_vocab_size(dataset)
    if not is_outdated and (file := folder / "dataset.json").exists():
        header = read_typed_header(file, DatasetHeader, f"remove {folder}, and plan without it")
        tokens = {split: Estimate(counts["tokens"]) for split, counts in header.splits.items()}
        if isinstance(dataset, TextDataset):
            shape: Shape = (dataset.seq_len,)
        else:
            shape = (dataset.size, dataset.size, header.shape[-1])
        vocab_size, disk = vocab_size or header.vocab_size, Estimate(folder_size(folder))
        return DatasetSize(tokens, disk, shape, vocab_size, header.classes, is_guess=False)
    amounts = _split_amounts(dataset, size.amounts)
    if isinstance(dataset, TextDataset):
        shape = (dataset.seq_len,)
        tokens = {split: text_tokens(amount, dataset) for split, amount in amounts.items()}
        is_guess = False
    else:
        shape = (dataset.size, dataset.size, size.shape[2] if size.shape else 3)
        tokens = {
            split: amount * (_tiles(dataset, split, size.shape) * math.prod(shape)) for split, amount in amounts.items()
        }
        is_guess = size.shape is None or (source.has_classes and not size.classes)
    id_bytes = np.min_scalar_type((vocab_size or 2**32) - 1).itemsize
    disk = (total(tokens.values()) * id_bytes).estimated()
    return DatasetSize(tokens, disk, shape, vocab_size, size.classes, is_guess)


def text_tokens(characters: Estimate, dataset: AnyDataset) -> Estimate:
    """Return the tokens of a text: one per letter or byte, else one per CHARACTERS_PER_TOKEN characters."""
    is_character = isinstance(dataset.tokenizer, data.Text8Tokenizer | data.BytesTokenizer)
    return (characters * (1 if is_character else 1 / CHARACTERS_PER_TOKEN)).estimated()


def _tiles(dataset: ImageDataset, split: str, shape: Shape | None) -> Estimate:
    """Return the number of tiles of an image, ((H - size) // stride + 1) ((W - size) // stride + 1).

    It is 1 if the shape is unknown. Tiles of validation and test do not overlap: their stride is their size.
    """
    if shape is None:
        return Estimate(1, is_guess=True)
    stride = dataset.stride if split == "train" and dataset.stride else dataset.size
    return Estimate(math.prod(max((edge - dataset.size) // stride + 1, 0) for edge in shape[:2]))


def _split_amounts(dataset: AnyDataset, amounts: Mapping[str | None, Estimate]) -> dict[str, Estimate]:
    """Return the characters or images of each split of the dataset, given those of each split of the source.

    Validation and test are splits of the source, or parts of its split "train", or of all other data if it has none.
    """
    specs = dataset.splits.resolve([split for split in amounts if split is not None])
    rest = [split for split in amounts if split not in specs.values() and ("train" not in amounts or split == "train")]
    pool = total(amounts[split] for split in rest)
    taken = {split: _part_of(pool, spec, dataset) for split, spec in specs.items() if not isinstance(spec, str)}
    named = {split: amounts.get(spec, UNKNOWN) for split, spec in specs.items() if isinstance(spec, str)}
    return {"train": pool + total(taken.values()) * -1, **taken, **named}


def _part_of(pool: Estimate, spec: SplitSpec, dataset: AnyDataset) -> Estimate:
    match spec:
        case data.LastDocuments(last_documents=count) if isinstance(dataset, ImageDataset):
            return Estimate(count)
        case data.LastCharacters(last_characters=count):
            return Estimate(count)
        case float() | data.Windows():
            return pool.ceil_times(Fraction(str(spec if isinstance(spec, float) else spec.windows))).estimated()
    return UNKNOWN  # The lengths of documents differ.


def find_vocab_size(dataset: AnyDataset) -> int | None:
    """Return the vocabulary size; None if the tokenizer's file is not downloaded yet."""
    match dataset.tokenizer:
        case data.PixelTokenizer(levels=count) | data.SentencePieceTokenizer(vocab_size=count):
            return count
        case data.GPT2Tokenizer(path=path) if not Path(path).exists():
            return GPT2_VOCABULARY
        case data.HFTokenizerFile(path=path) if not Path(path).exists():
            return None
        case tokenizer:
            from mdpipe.data.tokenizers import build_tokenizer

            return build_tokenizer(tokenizer).vocab_size


def tokenizer_size(name: str, dataset: AnyDataset, is_outdated: bool) -> tuple[Estimate, Estimate]:
    """Return the bytes to download for a tokenizer and its bytes on disk; both are 0 before a tokenizer is fitted."""
    download = NOTHING
    if (
        isinstance(dataset.tokenizer, data.GPT2Tokenizer | data.HFTokenizerFile)
        and not Path(dataset.tokenizer.path).exists()
    ):
        download = Estimate(GPT2_BYTES) if isinstance(dataset.tokenizer, data.GPT2Tokenizer) else UNKNOWN
    kept = paths.tokenizer(name)
    return download, Estimate(folder_size(kept)) if kept.is_dir() and not is_outdated else download


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
