"""Sizes of datasets before anything runs: exact if they are in data/encoded, else from the sizes of their sources."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mdpipe.commands.plan_sources import NOTHING, UNKNOWN, Estimate, Shape, SourceSize, total
from mdpipe.data.artifacts.files import folder_size, read_header
from mdpipe.data.dataset import DatasetHeader, token_dtype
from mdpipe.params import data
from mdpipe.params.data import ImageDataset, TextDataset
from mdpipe.params.sources import Source
from mdpipe.pipeline import paths

if TYPE_CHECKING:
    from mdpipe.data.tokenizers import Tokenizer

CHARS_PER_TOKEN = 4.3
"""Characters per token of English text, for GPT-2's vocabulary or a similar one."""
CHARS_PER_DOUBLING, CHARS_AT_ONE = 0.47, -2.3
"""Characters per token of SentencePiece are 0.47 log2(V) - 2.3: within 11 % for OpenWebText and V of 512 to 32,768."""
GPT2_VOCABULARY, GPT2_BYTES = 50_257, 1_042_301 + 456_318
"""GPT-2's tokens, and the bytes of its vocab.json and merges.txt."""
MAX_TOKENIZED = 2**18
"""About how many characters of a source are tokenized."""
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
    tokenizer: "Tokenizer | None"
    """The tokenizer of a text; None if it is not fitted or downloaded yet."""
    is_guess: bool = False
    """True if the number of channels or classes is a guess."""

    @property
    def length(self) -> int:
        """Tokens per example."""
        return math.prod(self.shape)

    def examples(self, tokens: Estimate) -> Estimate:
        """Return the number of examples that the tokens fill; the last one may be shorter."""
        return Estimate(-(-tokens.value // self.length), tokens.is_guess)


def dataset_size(name: str, dataset: AnyDataset, source: Source, size: SourceSize, is_outdated: bool) -> DatasetSize:
    """Return the size of a dataset, read from data/encoded if that is up to date, else estimated from its source.

    Raises:
        ValueError: the folder in data/encoded, or the tokenizer, is broken.
    """
    folder, tokenizer = paths.encoded(name), find_tokenizer(name, dataset, is_outdated)
    vocab_size = find_vocab_size(dataset, tokenizer)
    if not is_outdated and (folder / "dataset.json").exists():
        header = read_header(folder / "dataset.json", DatasetHeader, f"remove {folder}, and plan without it")
        tokens = {split: Estimate(counts["tokens"]) for split, counts in header.splits.items()}
        shape = _shape(dataset, header.shape[-1])
        disk, vocab_size = Estimate(folder_size(folder)), vocab_size or header.vocab_size
        return DatasetSize(tokens, disk, shape, vocab_size, header.classes, tokenizer)
    shape = _shape(dataset, size.shape[-1] if size.shape else 3)
    amounts = split_amounts(dataset, size)
    if isinstance(dataset, TextDataset):
        tokens = {split: text_tokens(amount, size, tokenizer, dataset) for split, amount in amounts.items()}
        others = total(amounts.values()) * (POSITION_BYTES / size.document_length)
        others += Estimate((vocab_size or 0) * COUNT_BYTES)
        is_guess = False
    else:
        tokens = {
            split: images * (_tiles(dataset, split, size.shape) * math.prod(shape)) for split, images in amounts.items()
        }
        others, is_guess = NOTHING, size.shape is None or (source.has_classes and not size.classes)
    id_bytes = np.dtype(token_dtype(vocab_size or 2**32)).itemsize
    disk = (total(tokens.values()) * id_bytes + others).estimated()
    return DatasetSize(tokens, disk, shape, vocab_size, size.classes, tokenizer, is_guess)


def _shape(dataset: AnyDataset, channels: int) -> Shape:
    return (
        (dataset.seq_len,) if isinstance(dataset, TextDataset) else (dataset.image_size, dataset.image_size, channels)
    )


def split_amounts(dataset: AnyDataset, size: SourceSize) -> dict[str, Estimate]:
    """Return the characters or images of each split of the dataset.

    Validation and test are splits of the source, or parts of its pool: its split "train", or else all other data.
    """
    specs = dataset.splits.resolve([split for split in size.amounts if split is not None])
    pooled = {"train"} if "train" in size.amounts else size.amounts.keys() - specs.values()
    pool = total(size.amounts[split] for split in pooled)
    unit = 1 if isinstance(dataset, ImageDataset) else size.document_length
    amounts, taken = {}, NOTHING
    for split, spec in specs.items():
        match spec:
            case str():
                amounts[split] = size.amounts.get(spec, UNKNOWN)
                continue
            case data.LastDocuments(last_documents=count):
                amounts[split] = Estimate(count * unit if unit < math.inf else math.nan).estimated(unit != 1)
            case data.LastCharacters(last_characters=count):
                amounts[split] = Estimate(count)
            case float() | data.Windows():
                part = spec if isinstance(spec, float) else spec.windows
                amounts[split] = Estimate(round(pool.value * part) if not pool.is_unknown else math.nan, is_guess=True)
        taken += amounts[split]
    return {"train": pool + taken * -1, **amounts}


def text_tokens(
    characters: Estimate, size: SourceSize, tokenizer: "Tokenizer | None", dataset: TextDataset
) -> Estimate:
    """Return the tokens of a text in windows, of which a sample of its source has as many per character.

    Without a sample or a tokenizer, it is as many as is usual. A further token ends or separates documents.
    """
    texts = [text[:MAX_TOKENIZED] for text in size.texts[:: max(1, sum(map(len, size.texts)) // MAX_TOKENIZED)]]
    if tokenizer is not None and any(texts):
        per_character = sum(_count_tokens(tokenizer, text) for text in texts) / sum(map(len, texts))
        has_ends = dataset.packing.append_eos or tokenizer.eos_separates_words
    else:
        per_character, has_ends = 1 / usual_chars_per_token(dataset.tokenizer), dataset.packing.append_eos
    tokens = (characters * (per_character + int(has_ends) / size.document_length)).estimated()
    if dataset.packing.drop_last:
        windows = tokens.value // dataset.packing.stream_tokens(dataset.seq_len)
        return Estimate(windows * dataset.seq_len, tokens.is_guess)
    return tokens


def _count_tokens(tokenizer: "Tokenizer", text: str) -> int:
    """Return the tokens of a document, without the spaces at its ends that the data have not."""
    ids = tokenizer.encode(text)
    return len(tokenizer.decode(ids).strip()) if tokenizer.eos_separates_words else len(ids)


def usual_chars_per_token(tokenizer: data.TextTokenizer) -> float:
    """Return the characters per token that are usual for English text."""
    match tokenizer:
        case data.Text8Tokenizer() | data.BytesTokenizer():
            return 1
        case data.SentencePieceTokenizer(vocab_size=vocab_size):
            return CHARS_PER_DOUBLING * math.log2(vocab_size) + CHARS_AT_ONE
    return CHARS_PER_TOKEN


def _tiles(dataset: ImageDataset, split: str, shape: Shape | None) -> Estimate:
    """Return the number of tiles of an image, ((H - size) // stride + 1) ((W - size) // stride + 1).

    It is 1 if the shape is unknown. Tiles of validation and test do not overlap: their stride is their size.
    """
    if shape is None:
        return Estimate(1, is_guess=True)
    stride = dataset.stride if split == "train" and dataset.stride else dataset.image_size
    return Estimate(math.prod(max((edge - dataset.image_size) // stride + 1, 0) for edge in shape[:2]))


def find_tokenizer(name: str, dataset: AnyDataset, is_outdated: bool) -> "Tokenizer | None":
    """Return the tokenizer of a text; None if it is not fitted or downloaded yet, and for images."""
    config = dataset.tokenizer
    match config:
        case data.PixelTokenizer():
            return None
        case data.GPT2Tokenizer(path=path) | data.HFTokenizerFile(path=path) if not Path(path).exists():
            return None
        case data.SentencePieceTokenizer(vocab_size=vocab_size):
            if is_outdated or not (paths.tokenizer(name) / "tokenizer.json").exists():
                return None
            from mdpipe.data.tokenizers import load_tokenizer

            found = load_tokenizer(paths.tokenizer(name))
            return found if found.vocab_size == vocab_size else None
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
    download, folder = NOTHING, paths.tokenizer(name)
    match dataset.tokenizer:
        case data.GPT2Tokenizer(path=path) | data.HFTokenizerFile(path=path) if not Path(path).exists():
            download = Estimate(GPT2_BYTES) if isinstance(dataset.tokenizer, data.GPT2Tokenizer) else UNKNOWN
    return download, Estimate(folder_size(folder)) if folder.is_dir() and not is_outdated else download
