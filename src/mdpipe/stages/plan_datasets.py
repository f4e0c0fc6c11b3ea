"""How many tokens a dataset has: from data/encoded where it is there, else from what is known of its source."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mdpipe.params.base import Section
from mdpipe.params.data import (
    Bytes,
    Chunks,
    Gpt2,
    Held,
    ImageDataset,
    Json,
    Last,
    LastCharacters,
    Letters,
    Pieces,
    Pixels,
    TextDataset,
)
from mdpipe.params.sources import Digits, Photos, Source, has_classes
from mdpipe.stages import paths
from mdpipe.stages.plan_figures import NOTHING, UNKNOWN, Figure, total
from mdpipe.stages.plan_sizes import LABEL_BYTES, Material, Part, Parts, channels, folder_size, read_header

AnyDataset = TextDataset | ImageDataset

PIECE = 4.3
"""Characters of English text that a token of GPT-2 stands for, or of another vocabulary of such a size."""
PIECE_BYTES = 15
"""Of a SentencePiece model, for every piece."""
GPT2_VOCABULARY = 50_257
GPT2_BYTES = 1_042_301 + 456_318
"""Of GPT-2's vocab.json and merges.txt."""


@dataclass(frozen=True)
class Encoded:
    """What is known of a dataset."""

    splits: Mapping[str, Figure]
    """Tokens."""
    disk: Figure
    """Bytes of data/encoded/DATASET."""
    shape: tuple[int, ...]
    """(L,) or (H, W, C)."""
    vocabulary: int | None
    """None where the tokenizer is yet to be fetched."""
    classes: int
    """0 where it has none, or nothing says how many."""
    guessed: bool
    """Whether the number of channels or of classes is a guess."""

    @property
    def length(self) -> int:
        """Tokens of an example."""
        return math.prod(self.shape)

    @property
    def tokens(self) -> Figure:
        """Of all splits."""
        return total(self.splits.values())


def encoded_of(
    name: str, dataset: AnyDataset, source: Source, material: Material, is_outdated: bool = False
) -> Encoded:
    """What is known of a dataset, from its settings, its source and what is known of that; and from what is encoded,
    unless that is of an older definition.

    The disk that it will take is, for every token, the smallest integer that holds an id, and eight bytes for every
    picture's label and for every token of the vocabulary.
    """
    folder, vocabulary = paths.encoded(name), vocabulary_of(dataset)
    if not is_outdated and (header := read_header(folder / "dataset.json")) is not None:
        shape = (dataset.length,) if isinstance(dataset, TextDataset) else (*[dataset.size] * 2, header["shape"][-1])
        splits = {split: Figure(counts["tokens"]) for split, counts in header["splits"].items()}
        disk, vocabulary = Figure(folder_size(folder)), vocabulary or int(header["vocabulary"])
        return Encoded(splits, disk, shape, vocabulary, header["classes"], guessed=False)
    labels, guessed = 0.0, False
    if isinstance(dataset, TextDataset):
        shape = (dataset.length,)
        splits = _text_splits(dataset, material)
    else:
        channel, guessed = channels(source, material)
        shape = (dataset.size, dataset.size, channel)
        # Each of these pictures has a split of its own; of others some may be equal, and equal ones share theirs.
        tiles = _tiles(dataset, material, apart=isinstance(source, Digits | Photos))
        splits = {split: (count * math.prod(shape)).roughly(guessed) for split, count in tiles.items()}
        if has_classes(source):
            labels, guessed = LABEL_BYTES / math.prod(shape), guessed or not material.classes
    id_bytes = np.min_scalar_type((vocabulary or 2**32) - 1).itemsize
    disk = total(splits.values()) * (id_bytes + labels) + Figure(8 * (vocabulary or 0))
    return Encoded(splits, disk.roughly(), shape, vocabulary, material.classes, guessed)


def tokens_of(characters: Figure, tokenizer: Section) -> Figure:
    """One for a letter or byte, else one for PIECE characters."""
    return (characters * (1 if isinstance(tokenizer, Letters | Bytes) else 1 / PIECE)).roughly()


def vocabulary_of(dataset: AnyDataset) -> int | None:
    """Number of tokens, from the settings or the tokenizer's own file; None where that is yet to be fetched."""
    from mdpipe.data.tokenizers import fit_tokenizer

    match dataset.tokenizer:
        case Pixels() as pixels:
            return pixels.levels
        case Pieces() as pieces:
            return pieces.vocabulary
        case Gpt2() | Json() as named if not Path(named.path).exists():
            return GPT2_VOCABULARY if isinstance(named, Gpt2) else None
        case ready:
            return fit_tokenizer(ready.kind, [], **ready.model_dump(exclude={"kind"})).vocabulary


def tokenizer_sizes(name: str, dataset: AnyDataset, is_outdated: bool = False) -> tuple[Figure, Figure]:
    """Bytes over the network and on the disk; a tokenizer with nothing to keep but its name counts as nothing."""
    download, disk = NOTHING, NOTHING
    match dataset.tokenizer:
        case Pieces() as pieces:
            disk = Figure(PIECE_BYTES * pieces.vocabulary)
        case Gpt2() | Json() as named if Path(named.path).exists():
            disk = Figure(folder_size(Path(named.path)))
        case Gpt2():
            download = disk = Figure(GPT2_BYTES)
        case Json():
            download = disk = UNKNOWN
    kept = paths.tokenizer(name)
    return download, Figure(folder_size(kept)) if kept.is_dir() and not is_outdated else disk.roughly()


def tokenizer_tokens(dataset: AnyDataset, encoded: Encoded) -> Figure:
    """What a tokenizer learns from: the training split or a sample of it; nothing where it learns nothing."""
    if not isinstance(dataset.tokenizer, Pieces):
        return NOTHING
    whole = encoded.splits["train"]
    if dataset.tokenizer.sample is None:
        return whole
    sampled = tokens_of(Figure(dataset.tokenizer.sample), dataset.tokenizer)
    return sampled if whole.unknown or sampled.value < whole.value else whole


def shares(parts: Parts, validation: Held, test: Held, *, apart: bool = False, text: bool = False) -> dict[str, Figure]:
    """Characters or pictures of each split.

    What is held out is the source's own split of a name, or a share or the end of the rest, which is the source's own
    split "train" if it has one. What then remains of the rest is for training.

    Args:
        parts: what the source has.
        validation: what is held out for validation,
        test: and for testing.
        apart: whether shares are exact.
        text: whether a share is one of the documents, whose lengths differ.
    """
    named = {held: parts.get(held, Part(UNKNOWN, UNKNOWN)) for held in (validation, test) if isinstance(held, str)}
    rest = [part for split, part in parts.items() if split not in named and ("train" not in parts or split == "train")]
    pool = Part(total(part.units for part in rest), total(part.amount for part in rest))
    held_out = {
        split: named[held].amount if isinstance(held, str) else _held(pool, held, apart, text)
        for split, held in (("validation", validation), ("test", test))
    }
    taken = [held_out[split] for split, held in (("validation", validation), ("test", test)) if held not in named]
    return {"train": pool.amount.less(taken), **held_out}


def _held(pool: Part, held: Held, apart: bool, text: bool) -> Figure:
    """Of the pool: of all n a share s gives ceil(s n), the last k documents k / n of the characters."""
    match held:
        case float():
            return pool.amount.share(held).roughly(not apart)
        case Chunks():
            return pool.amount.share(held.chunks).roughly()
        case LastCharacters():
            return Figure(held.last_characters)
        case Last() if text:
            if pool.units.unknown or pool.amount.unknown:
                return UNKNOWN
            return (pool.amount * (held.last / pool.units.value)).roughly()
        case Last():
            return Figure(held.last)
    raise ValueError(f"{held!r} is not held out of the rest")


def _text_splits(dataset: TextDataset, material: Material) -> dict[str, Figure]:
    characters = shares(material.parts, dataset.validation, dataset.test, text=True)
    return {split: tokens_of(amount, dataset.tokenizer) for split, amount in characters.items()}


def _tiles(dataset: ImageDataset, material: Material, apart: bool) -> dict[str, Figure]:
    """Tiles of each split: ((H - size) // stride + 1) ((W - size) // stride + 1) a picture.

    The stride of held-out tiles is their size. Pictures of unknown size are taken for a tile each.
    """
    pictures = shares(material.parts, dataset.validation, dataset.test, apart=apart)
    if material.shape is None:
        return {split: count.roughly() for split, count in pictures.items()}
    tiles = {}
    for split, count in pictures.items():
        stride = dataset.stride if split == "train" else dataset.size
        rows, columns = ((edge - dataset.size) // stride + 1 for edge in material.shape[:2])
        tiles[split] = count * (max(rows, 0) * max(columns, 0))
    return tiles
