"""Sizes of sources and datasets: those of data/, else what settings, the catalog and the sizes of files state.

A number that is not known is NaN. No file is read before its download: a plain file of text has a character per byte,
which is within a fifth for English, and too many for other columns of CSV and JSON lines and for alphabets with several
bytes per character. Files of all other kinds are unknown.
"""

import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mdpipe.data.artifacts.files import folder_size, read_header
from mdpipe.data.dataset import DatasetHeader, token_dtype
from mdpipe.data.raw import raw_shards, read_images
from mdpipe.data.sources.files import find_files
from mdpipe.file_formats import COMPRESSED
from mdpipe.params import data, sources
from mdpipe.params.catalog import find_entry
from mdpipe.params.data import ImageDataset, TextDataset
from mdpipe.params.sources import Source
from mdpipe.pipeline import paths

DIGITS, PHOTOS, PHOTO_EDGES = 1797, 2, (427, 640)
"""Images that come with scikit-learn."""
GPT2_VOCABULARY = 50_257
CHARS_PER_TOKEN = 4.3
"""Characters per token of English text, for GPT-2's vocabulary or a similar one."""
KNOWN_RATES = {"text8": 1, "bytes": 1, "sentencepiece": math.nan}
"""Characters per token of the other tokenizers; SentencePiece's depend on its vocabulary."""

Shape = tuple[int, ...]
AnyDataset = TextDataset | ImageDataset


@dataclass(frozen=True)
class SourceSize:
    """The size of a source."""

    amounts: Mapping[str | None, float]
    """Characters or images in each split of the source; the key is None if the source has no splits."""
    disk: float
    """Bytes of data/raw/SOURCE."""
    document_length: float = math.inf
    """Characters per document of a text; infinite if unknown."""
    shape: Shape | None = None
    """(H, W, C) of the images, if known."""
    classes: int = 0
    """Number of classes; 0 if there are none or it is unknown."""
    is_estimate: bool = True


def source_size(name: str, source: Source, is_changed: bool) -> SourceSize:
    """Return the size of a source, of data/raw unless its definition has changed since.

    Raises:
        ValueError: The folder in data/raw is broken.
    """
    folder = paths.raw(name)
    if is_changed or not (folder / "source.json").exists():
        amounts, shape = _count(source), source.image_shape
        disk = sum(amounts.values()) * (1 if source.modality == "text" else math.prod(shape or (math.nan,)))
        return SourceSize(amounts, disk, shape=shape, classes=_count_classes(source))
    shards, disk = raw_shards(folder, source.modality), folder_size(folder)
    if source.modality == "image":
        images, amounts = read_images(folder), _by_split((shard.split, shard.count) for shard in shards)
        return SourceSize(amounts, disk, shape=images.shape, classes=images.classes, is_estimate=False)
    amounts = _by_split((shard.split, shard.characters) for shard in shards)
    document_length = sum(amounts.values()) / max(sum(shard.count for shard in shards), 1)
    return SourceSize(amounts, disk, document_length, is_estimate=False)


def _count(source: Source) -> dict[str | None, float]:
    """Return the characters or images in each split of a source that is not in data/raw."""
    match source:
        case sources.CatalogSource():
            entry = find_entry(source.name)
            # The counts of a text with splits are documents.
            counts = (entry.counts or {}) if entry.modality == "image" or not entry.splits else {}
            return {split: counts.get(split or "characters", math.nan) for split in entry.splits or (None,)}
        case sources.DigitsSource():
            return {None: DIGITS}
        case sources.PhotosSource():
            return {None: PHOTOS * math.prod(edge // source.region for edge in PHOTO_EDGES)}
        case sources.TextSource() | sources.JsonLinesSource() | sources.CsvSource():
            with suppress(ValueError, OSError):  # The notes of the plan have a line for files that cannot be read.
                files = find_files(Path(source.path), source.pattern)
                return _by_split((file.split, math.nan if file.is_compressed else file.size) for file in files)
    return {None: math.nan}


def _count_classes(source: Source) -> int:
    """Return the number of classes of images, or 0 if the settings do not state it."""
    match source.resolve():
        case sources.DigitsSource():
            return 10
        case sources.NpzFlatSource(labels=sources.NpzLabels(num_classes=classes)):
            return classes
    return 0


def _by_split(counts: Iterable[tuple[str | None, float]]) -> dict[str | None, float]:
    """Return the sum of the counts of the files or shards in each split."""
    sums: dict[str | None, float] = {}
    for split, count in counts:
        sums[split] = sums.get(split, 0) + count
    return sums


def download_size(source: Source, size: SourceSize) -> float:
    """Return the bytes to download for a source; unknown for packed data."""
    match source.resolve():
        case sources.UrlSource(url=url, member=member) if size.is_estimate:
            return math.nan if member or url.endswith(COMPRESSED) else size.disk
        case sources.HuggingFaceSource(name=name) if size.is_estimate and not Path(name).is_dir():
            return math.nan
    return 0  # It is on this machine.


@dataclass(frozen=True)
class DatasetSize:
    """The size of a dataset."""

    tokens: Mapping[str, float]
    """Number of tokens by split."""
    disk: float
    """Bytes of data/encoded/DATASET."""
    shape: Shape
    """(L,) or (H, W, C)."""
    vocab_size: int | None
    """Number of tokens of the tokenizer; None if it is not downloaded yet."""
    classes: int
    """Number of classes; 0 if there are none or it is unknown."""
    tokens_per_char: float = 1
    """Tokens per character of text."""
    is_estimate: bool = True

    @property
    def length(self) -> int:
        """Return the number of tokens per example."""
        return math.prod(self.shape)

    def examples(self, tokens: float) -> float:
        """Return the number of examples that the tokens fill; the last one may be shorter."""
        return -(-tokens // self.length)


def dataset_size(name: str, dataset: AnyDataset, source: SourceSize, is_changed: bool) -> DatasetSize:
    """Return the size of a dataset, of data/encoded unless its definition has changed since, else from its source.

    Raises:
        ValueError: The folder in data/encoded, or the tokenizer's file, is broken.
    """
    folder = paths.encoded(name)
    if not is_changed and (folder / "dataset.json").exists():
        header = read_header(folder / "dataset.json", DatasetHeader, f"remove {folder}, and plan without it")
        tokens = {split: float(counts["tokens"]) for split, counts in header.splits.items()}
        characters = sum(counts.get("characters", 0) for counts in header.splits.values())
        per_char = sum(tokens.values()) / max(characters, 1)
        return DatasetSize(
            tokens, folder_size(folder), header.shape, header.vocab_size, header.classes, per_char, is_estimate=False
        )
    amounts, vocab_size = split_amounts(dataset, source), find_vocab_size(dataset.tokenizer)
    if isinstance(dataset, TextDataset):
        shape: Shape = (dataset.seq_len,)
        per_char = (
            1 / KNOWN_RATES.get(dataset.tokenizer.kind, CHARS_PER_TOKEN)
            + dataset.packing.append_eos / source.document_length
        )
        tokens = {split: characters * per_char for split, characters in amounts.items()}
    else:
        shape, per_char = (dataset.image_size, dataset.image_size, source.shape[-1] if source.shape else 3), 1
        tokens = {
            split: images * count_tiles(dataset, split, source.shape) * math.prod(shape)
            for split, images in amounts.items()
        }
    disk = sum(tokens.values()) * np.dtype(token_dtype(vocab_size or 2**32)).itemsize
    return DatasetSize(tokens, disk, shape, vocab_size, source.classes, per_char)


def split_amounts(dataset: AnyDataset, size: SourceSize) -> dict[str, float]:
    """Return the characters or images of each split of the dataset.

    Validation and test are splits of the source, or parts of its pool: its split "train", or else all other data.
    """
    specs = dataset.splits.resolve([split for split in size.amounts if split is not None])
    pooled = {"train"} if "train" in size.amounts else size.amounts.keys() - specs.values()
    pool = sum(size.amounts[split] for split in pooled)
    amounts, taken = {}, 0.0
    for split, spec in specs.items():
        match spec:
            case str():
                amounts[split] = size.amounts.get(spec, math.nan)
                continue
            case data.LastDocuments(last_documents=count):
                unit = 1 if isinstance(dataset, ImageDataset) else size.document_length
                amounts[split] = count * unit if unit < math.inf else math.nan
            case data.LastCharacters(last_characters=count):
                amounts[split] = count
            case float() | data.Windows():
                amounts[split] = float(np.round(pool * (spec if isinstance(spec, float) else spec.windows)))
        taken += amounts[split]
    return {"train": pool - taken, **amounts}


def count_tiles(dataset: ImageDataset, split: str, shape: Shape | None) -> int:
    """Return the number of tiles of an image, ((H - size) // stride + 1) ((W - size) // stride + 1).

    It is 1 if the shape is unknown. Tiles of validation and test do not overlap: their stride is their size.
    """
    stride = dataset.stride if split == "train" and dataset.stride else dataset.image_size
    return math.prod(max((edge - dataset.image_size) // stride + 1, 0) for edge in (shape or ())[:2])


def find_vocab_size(tokenizer: data.TextTokenizer | data.PixelTokenizer) -> int | None:
    """Return the vocabulary size; None if the tokenizer's file is not downloaded yet and decides it."""
    match tokenizer:
        case data.PixelTokenizer(levels=count) | data.SentencePieceTokenizer(vocab_size=count):
            return count
        case data.GPT2Tokenizer(path=path) | data.HFTokenizerFile(path=path) if not Path(path).exists():
            return GPT2_VOCABULARY if tokenizer.kind == "gpt2" else None
    from mdpipe.data.tokenizers import build_tokenizer

    return build_tokenizer(tokenizer).vocab_size
