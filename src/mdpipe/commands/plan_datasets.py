"""Sizes of datasets before anything runs: exact if they are in data/, else from the sizes of their sources.

The tokens of a text are counted in a sample of it, by its tokenizer, if both are there.
"""

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from mdpipe.commands.plan_sizes import NOTHING, UNKNOWN, Estimate, Shape, SourceSize, folder_size, total
from mdpipe.commands.plan_texts import tokens_per_character
from mdpipe.data.artifacts.files import read_header as read_typed_header
from mdpipe.data.dataset import DatasetHeader, token_dtype
from mdpipe.params import data
from mdpipe.params.data import ImageDataset, SplitSpec, TextDataset
from mdpipe.params.sources import Source
from mdpipe.pipeline import paths

if TYPE_CHECKING:
    from mdpipe.data.tokenizers import Tokenizer

CHARACTERS_PER_TOKEN = 4.3
"""Characters per token of English text, for GPT-2's vocabulary or a similar one."""
GPT2_VOCABULARY, GPT2_BYTES = 50_257, 1_042_301 + 456_318
"""GPT-2's tokens, and the bytes of its vocab.json and merges.txt."""
POSITION_BYTES = COUNT_BYTES = 8
"""In data/encoded, of the position at which a document begins, and of how often a token is in the training split."""

AnyDataset = TextDataset | ImageDataset


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
    tokenizer: "Tokenizer | None" = None
    """The tokenizer of a text; None if it is not fitted or downloaded yet."""

    @property
    def length(self) -> int:
        """Tokens per example."""
        return math.prod(self.shape)

    def examples(self, tokens: Estimate) -> Estimate:
        """Return the number of examples that the tokens fill; the last one may be shorter."""
        return tokens.ceil_times(Fraction(1, self.length))


def dataset_size(name: str, dataset: AnyDataset, source: Source, size: SourceSize, is_outdated: bool) -> DatasetSize:
    """Return the size of a dataset, read from data/encoded if that is up to date, else estimated from its source."""
    folder, tokenizer = paths.encoded(name), find_tokenizer(name, dataset, is_outdated)
    vocab_size = find_vocab_size(dataset, tokenizer)
    if not is_outdated and (file := folder / "dataset.json").exists():
        header = read_typed_header(file, DatasetHeader, f"remove {folder}, and plan without it")
        tokens = {split: Estimate(counts["tokens"]) for split, counts in header.splits.items()}
        if isinstance(dataset, TextDataset):
            shape: Shape = (dataset.seq_len,)
        else:
            shape = (dataset.image_size, dataset.image_size, header.shape[-1])
        vocab_size, disk = vocab_size or header.vocab_size, Estimate(folder_size(folder))
        return DatasetSize(tokens, disk, shape, vocab_size, header.classes, is_guess=False, tokenizer=tokenizer)
    amounts, others = _split_amounts(dataset, size), NOTHING
    if isinstance(dataset, TextDataset):
        shape = (dataset.seq_len,)
        documents = _split_documents(dataset, size, amounts)
        tokens = {
            split: text_tokens(amount, documents[split], size.texts, tokenizer, dataset)
            for split, amount in amounts.items()
        }
        is_guess = False
        others = total(documents.values()) * POSITION_BYTES + Estimate((vocab_size or 0) * COUNT_BYTES)
    else:
        shape = (dataset.image_size, dataset.image_size, size.shape[2] if size.shape else 3)
        tokens = {
            split: amount * (_tiles(dataset, split, size.shape) * math.prod(shape)) for split, amount in amounts.items()
        }
        is_guess = size.shape is None or (source.has_classes and not size.classes)
    id_bytes = np.dtype(token_dtype(vocab_size or 2**32)).itemsize
    disk = (total(tokens.values()) * id_bytes + others).estimated()
    return DatasetSize(tokens, disk, shape, vocab_size, size.classes, is_guess, tokenizer)


def text_tokens(
    characters: Estimate,
    documents: Estimate,
    texts: tuple[str, ...],
    tokenizer: "Tokenizer | None",
    dataset: AnyDataset,
) -> Estimate:
    """Return the tokens of a text in windows.

    Without a tokenizer or a sample of the text, that is one per letter or byte, else one per CHARACTERS_PER_TOKEN
    characters, and one per document if a token ends it.
    """
    if isinstance(dataset, ImageDataset):
        return UNKNOWN
    packing = dataset.packing
    if tokenizer is not None and texts:
        per_character, per_document = tokens_per_character(texts, cast("Hashable", tokenizer), packing)
    else:
        is_character = isinstance(dataset.tokenizer, data.Text8Tokenizer | data.BytesTokenizer)
        per_character, per_document = 1 if is_character else 1 / CHARACTERS_PER_TOKEN, int(packing.append_eos)
    tokens = (characters * per_character + documents * per_document).estimated()
    if packing.drop_last and not tokens.is_unknown:
        return Estimate(tokens.value // packing.stream_tokens(dataset.seq_len) * dataset.seq_len, tokens.is_guess)
    return tokens


def _tiles(dataset: ImageDataset, split: str, shape: Shape | None) -> Estimate:
    """Return the number of tiles of an image, ((H - size) // stride + 1) ((W - size) // stride + 1).

    It is 1 if the shape is unknown. Tiles of validation and test do not overlap: their stride is their size.
    """
    if shape is None:
        return Estimate(1, is_guess=True)
    stride = dataset.stride if split == "train" and dataset.stride else dataset.image_size
    return Estimate(math.prod(max((edge - dataset.image_size) // stride + 1, 0) for edge in shape[:2]))


def _split_amounts(dataset: AnyDataset, size: SourceSize) -> dict[str, Estimate]:
    """Return the characters or images of each split of the dataset.

    Validation and test are splits of the source, or parts of its pool.
    """
    amounts, specs = size.amounts, _split_specs(dataset, size)
    pool, documents = (_pooled(specs, numbers) for numbers in (amounts, size.documents))
    taken = {
        split: _part_of(pool, documents, spec, dataset) for split, spec in specs.items() if not isinstance(spec, str)
    }
    named = {split: amounts.get(spec, UNKNOWN) for split, spec in specs.items() if isinstance(spec, str)}
    return {"train": pool + total(taken.values()) * -1, **taken, **named}


def _split_documents(dataset: TextDataset, size: SourceSize, amounts: Mapping[str, Estimate]) -> dict[str, Estimate]:
    """Return the documents of each split of the dataset, as many per character as in the pool of its source.

    There are none if the source does not say how many it has.
    """
    specs = _split_specs(dataset, size)
    pool, documents = (_pooled(specs, numbers) for numbers in (size.amounts, size.documents))
    density = Estimate(documents.value / (pool.value or 1), is_guess=True)
    counts = {split: amount * density if size.documents else NOTHING for split, amount in amounts.items()}
    named = {split: size.documents.get(spec, NOTHING) for split, spec in specs.items() if isinstance(spec, str)}
    return counts | named


def _split_specs(dataset: AnyDataset, size: SourceSize) -> dict[str, SplitSpec]:
    return dataset.splits.resolve([split for split in size.amounts if split is not None])


def _pooled(specs: Mapping[str, SplitSpec], numbers: Mapping[str | None, Estimate]) -> Estimate:
    """Return the sum over the pool: the source's split "train", or all other data if it has none."""
    rest = [split for split in numbers if split not in specs.values() and ("train" not in numbers or split == "train")]
    return total(numbers[split] for split in rest)


def _part_of(pool: Estimate, documents: Estimate, spec: SplitSpec, dataset: AnyDataset) -> Estimate:
    match spec:
        case data.LastDocuments(last_documents=count) if isinstance(dataset, ImageDataset):
            return Estimate(count)
        case data.LastDocuments(last_documents=count) if documents.value:  # Their lengths differ.
            return Estimate(pool.value / documents.value * count, is_guess=True)
        case data.LastCharacters(last_characters=count):
            return Estimate(count)
        case float() | data.Windows():
            return pool.ceil_times(Fraction(str(spec if isinstance(spec, float) else spec.windows))).estimated()
    return UNKNOWN


def find_tokenizer(name: str, dataset: AnyDataset, is_outdated: bool) -> "Tokenizer | None":
    """Return the tokenizer of a text; None if it is not fitted or downloaded yet, and for images."""
    config = dataset.tokenizer
    match config:
        case data.PixelTokenizer():
            return None
        case data.GPT2Tokenizer(path=path) | data.HFTokenizerFile(path=path) if not Path(path).exists():
            return None
        case data.SentencePieceTokenizer():
            if is_outdated or not (paths.tokenizer(name) / "tokenizer.json").exists():
                return None
            from mdpipe.data.tokenizers import load_tokenizer

            found = load_tokenizer(paths.tokenizer(name))
            return found if found.vocab_size == config.vocab_size else None
    from mdpipe.data.tokenizers import build_tokenizer

    return build_tokenizer(config)


def find_vocab_size(dataset: AnyDataset, tokenizer: "Tokenizer | None") -> int | None:
    """Return the vocabulary size; None if the tokenizer's file is not downloaded yet."""
    match dataset.tokenizer:
        case data.PixelTokenizer(levels=count) | data.SentencePieceTokenizer(vocab_size=count):
            return count
        case data.GPT2Tokenizer() if tokenizer is None:
            return GPT2_VOCABULARY
    return None if tokenizer is None else tokenizer.vocab_size


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
