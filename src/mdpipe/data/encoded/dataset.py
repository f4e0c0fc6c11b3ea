"""Encoded datasets: the tokens of one split, memory-mapped, with what is needed to read them.

dataset.json                      modality, vocabulary, shape, length, tokenizer, classes, packing, counts of splits,
                                  the names of classes that have any
train-00000.npy, ...              text: the stream of tokens, shard by shard; pictures: (n, H*W*C) in the order H, W, C
train_labels-00000.npy, ...       pictures that have labels: int64 (n,), from 0 to classes - 1
unigram.npy                       int64 (V,): how often each token occurs in the training split
manifest.json, manifest.parquet   where it came from and what is in it
tokenizer.json, pieces.model or model.json   text: the tokenizer
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mdpipe.data.artifacts.arrays import open_array, open_labels
from mdpipe.data.artifacts.joined import Joined, joined
from mdpipe.data.artifacts.stable_json import write_json


def token_dtype(vocabulary: int) -> DTypeLike:
    """The smallest unsigned type that holds every id."""
    return np.min_scalar_type(vocabulary - 1)


@dataclass(frozen=True)
class EncodedDataset:
    """One split of an encoded dataset; open it with `EncodedDataset.open`.

    An example is a window of `length` tokens of text, or a picture. Evaluation reads each token exactly once: text in
    windows one after the other, the last of which may be shorter unless the text was cut into blocks.
    """

    directory: Path
    split: str
    modality: Literal["text", "image"]
    vocabulary: int
    shape: tuple[int, ...]
    """(L,) for text, (H, W, C) for pictures."""
    length: int
    """Tokens an example: L, or H * W * C."""
    tokenizer: str
    """The tokenizer's kind, "pixels" for pictures."""
    counts: Mapping[str, int]
    """Text: documents, tokens, bytes, characters. Pictures: images, tokens."""
    tokens: NDArray[np.unsignedinteger] | Joined[np.unsignedinteger]
    """Text: (tokens,), without the ends of blocks. Pictures: (N, length)."""
    blocks: bool
    """Text: whether it is a number of whole blocks, of `length` tokens each, and not one stream."""
    block_ends: tuple[int, ...]
    """Tokens that every block begins and ends with; `tokens` does not have them."""
    classes: int
    """Number of classes, 0 where there are no labels."""
    labels: NDArray[np.int64] | Joined[np.int64] | None
    """(N,), the class of each picture, where it has one."""
    class_names: tuple[str, ...]
    """What the classes are called, where the source has names for them."""

    @classmethod
    def open(cls, directory: Path, split: str) -> Self:
        """Memory-map a split and check it against dataset.json.

        Raises:
            ValueError: no such split, or a file is missing, truncated, or not what dataset.json says.
        """
        # A GPU machine that trains on tokens at hand does without pydantic.
        from mdpipe.data.artifacts.typed_json import read_typed_json
        from mdpipe.data.encoded.description import Description

        header = read_typed_json(directory / "dataset.json", Description, _cure(directory))
        if split not in header.splits:
            raise ValueError(f"{directory} has no split {split!r}; it has {', '.join(sorted(header.splits))}")
        classes, labels = header.classes, None
        arrays = [open_array(path, _cure(directory)) for path in _shards(directory, split)]
        tokens = _joined(arrays, directory, split)
        if classes:
            paths = [directory / f"{split}_labels-{number:05d}.npy" for number in range(len(arrays))]
            pairs = zip(paths, arrays, strict=True)
            labels = joined([open_labels(path, len(array), classes, _cure(directory)) for path, array in pairs])
        dataset = cls(
            directory=directory,
            split=split,
            modality=header.modality,
            vocabulary=header.vocabulary,
            shape=header.shape,
            length=header.length,
            tokenizer=header.tokenizer,
            counts=header.splits[split],
            tokens=tokens,
            blocks=header.blocks,
            block_ends=header.block_ends,
            classes=classes,
            labels=labels,
            class_names=header.class_names,
        )
        dataset._check_header()
        return dataset

    @property
    def files(self) -> list[Path]:
        """All that decides what training sees of this split."""
        labels = [] if self.labels is None else _shards(self.directory, f"{self.split}_labels")
        return [self.directory / "dataset.json", *_shards(self.directory, self.split), *labels]

    @property
    def examples(self) -> int:
        """Number of examples that evaluation reads."""
        return -(-len(self.tokens) // self.content) if self.modality == "text" else len(self.tokens)

    @property
    def content(self) -> int:
        """Tokens of the stream in an example of text."""
        return self.length - 2 * len(self.block_ends)

    def windows(self, offsets: NDArray[np.integer]) -> NDArray[np.int64]:
        """The examples of text that begin at these places of the stream: int64 (n, length).

        Raises:
            ValueError: a token is no id of the vocabulary.
        """
        ends = np.array(self.block_ends, dtype=self.tokens.dtype)
        rows = [np.concatenate([ends, self.tokens[first : first + self.content], ends]) for first in offsets.tolist()]
        return self.checked(np.stack(rows)) if rows else np.empty((0, self.length), dtype=np.int64)

    def evaluation_batches(self, batch_size: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """The whole split in order, as (index of the first example, tokens).

        A text's last window, where it is shorter, comes as a batch of its own.

        Shapes: int64 (n, length) with n at most `batch_size`; the short window (1, rest).

        Raises:
            ValueError: a token is no id of the vocabulary.
        """
        count = len(self.tokens) if self.modality == "image" else len(self.tokens) // self.content
        for first in range(0, count, batch_size):
            last = min(first + batch_size, count)
            if self.modality == "image":
                yield first, self.checked(self.tokens[first:last])
            else:
                yield first, self.windows(np.arange(first, last) * self.content)
        if count < self.examples:
            yield count, self.checked(self.tokens[count * self.content : len(self.tokens)].reshape(1, -1))

    def evaluation_labels(self, first: int, count: int) -> NDArray[np.int64]:
        """The labels of the batch of `count` pictures that begins with the picture `first`: int64 (count,).

        Raises:
            ValueError: the dataset has no labels.
        """
        return np.array(self.known_labels()[first : first + count])

    def known_labels(self) -> NDArray[np.int64] | Joined[np.int64]:
        """The labels, for what cannot do without.

        Raises:
            ValueError: there are none.
        """
        if self.labels is None:
            raise ValueError(f"{self.directory} has no labels; say in params.yaml which `labels` its source has")
        return self.labels

    def unigram(self) -> NDArray[np.int64]:
        """How often each token occurs in the training split: int64 (V,).

        Raises:
            ValueError: the file is missing, truncated or not of this shape.
        """
        path = self.directory / "unigram.npy"
        counts = open_array(path, _cure(self.directory))
        if counts.dtype != np.int64 or counts.shape != (self.vocabulary,):
            raise ValueError(
                f"{path} should be int64 ({self.vocabulary},), not {counts.dtype} {counts.shape};"
                f" {_cure(self.directory)}"
            )
        return np.array(counts)

    def checked(self, tokens: NDArray[np.unsignedinteger]) -> NDArray[np.int64]:
        """Tokens as int64, refused where one is no id: an embedding would fail later and say less.

        Raises:
            ValueError: a token is not below the vocabulary.
        """
        if tokens.max() >= self.vocabulary:
            raise ValueError(
                f"{self._where} holds the token {tokens.max()}, but the vocabulary has"
                f" {self.vocabulary}; {_cure(self.directory)}"
            )
        return tokens.astype(np.int64)

    @property
    def _where(self) -> Path:
        """Its files, for a message."""
        files = _shards(self.directory, self.split)
        return files[0] if len(files) == 1 else self.directory / f"{self.split}-*.npy"

    def _check_header(self) -> None:
        if self.modality == "image":
            expected: tuple[Any, ...] = (self.counts.get("images"), self.length)
        else:
            expected = (self.counts.get("tokens", 0) // self.length * self.content,)
            if not self.blocks:
                expected = (self.counts.get("tokens"),)
        dtype = token_dtype(self.vocabulary)
        if self.tokens.shape != expected or self.tokens.dtype != dtype or not self.tokens.size:
            raise ValueError(
                f"{self._where} should be {dtype} {expected} and not empty, but is {self.tokens.dtype}"
                f" {self.tokens.shape}; {_cure(self.directory)}"
            )


def write_header(
    folder: Path,
    *,
    modality: Literal["text", "image"],
    tokenizer: str,
    vocabulary: int,
    shape: tuple[int, ...],
    counts: Mapping[str, Mapping[str, int]],
    classes: int = 0,
    class_names: Sequence[str] = (),
    blocks: bool = False,
    block_ends: Sequence[int] = (),
) -> None:
    """Write dataset.json."""
    header: dict[str, Any] = {
        "modality": modality,
        "tokenizer": tokenizer,
        "vocabulary": vocabulary,
        "shape": list(shape),
        "length": int(np.prod(shape)),
        "classes": classes,
        "blocks": blocks,
        "block_ends": list(block_ends),
        "splits": counts,
    }
    if class_names:
        header["class_names"] = list(class_names)
    write_json(folder / "dataset.json", header)


def _shards(directory: Path, name: str) -> list[Path]:
    """The files of a split in order; the first one in any case, so that a missing one is named."""
    return sorted(directory.glob(f"{name}-[0-9]*.npy")) or [directory / f"{name}-00000.npy"]


def _joined(arrays: list[NDArray[Any]], directory: Path, split: str) -> NDArray[Any] | Joined[Any]:
    try:
        return joined(arrays)
    except ValueError as error:
        raise ValueError(f"{directory}, split {split}: {error}; {_cure(directory)}") from None


def _cure(directory: Path) -> str:
    return f"run `dvc repro encode@{directory.name}` again"
