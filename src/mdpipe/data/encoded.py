"""Encoded datasets: the tokens of one split, memory-mapped, with what is needed to read them.

dataset.json                            modality, vocabulary, shape, length, tokenizer, classes, counts of each split
train.npy, validation.npy, test.npy     text: one stream of tokens; pictures: (N, H*W*C) in the order H, W, C
train_labels.npy, ...                   pictures that have labels: int64 (N,), from 0 to classes - 1
unigram.npy                             int64 (V,): how often each token occurs in the training split
tokenizer.json, pieces.model            text: the tokenizer
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mdpipe.data.artifacts.arrays import open_array, open_labels
from mdpipe.data.artifacts.stable_json import read_json


def token_dtype(vocabulary: int) -> DTypeLike:
    """The smallest unsigned type that holds every id."""
    return np.min_scalar_type(vocabulary - 1)


@dataclass(frozen=True)
class EncodedDataset:
    """One split of an encoded dataset; open it with `EncodedDataset.open`.

    An example is a window of `length` tokens of text, or a picture. Evaluation reads each token exactly once: text in
    windows one after the other, the last of which may be shorter.
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
    tokens: NDArray[np.unsignedinteger]
    """Text: (tokens,). Pictures: (N, length)."""
    classes: int
    """Number of classes, 0 where there are no labels."""
    labels: NDArray[np.int64] | None
    """(N,), the class of each picture, where it has one."""

    @classmethod
    def open(cls, directory: Path, split: str) -> Self:
        """Memory-map a split and check it against dataset.json.

        Raises:
            ValueError: no such split, or a file is missing, truncated, or not what dataset.json says.
        """
        header = read_json(directory / "dataset.json", _cure(directory))
        try:
            splits = header["splits"]
            fields: dict[str, Any] = {
                "modality": header["modality"],
                "vocabulary": int(header["vocabulary"]),
                "shape": tuple(header["shape"]),
                "length": int(header["length"]),
                "tokenizer": header["tokenizer"],
                "classes": int(header["classes"]),
            }
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{directory / 'dataset.json'} is incomplete ({error!r}); {_cure(directory)}") from None
        if split not in splits:
            raise ValueError(f"{directory} has no split {split!r}; it has {', '.join(sorted(splits))}")
        counts, classes, labels = splits[split], fields["classes"], None
        tokens = open_array(directory / f"{split}.npy", _cure(directory))
        if classes:
            labels = open_labels(_labels_path(directory, split), counts.get("images"), classes, _cure(directory))
        dataset = cls(directory=directory, split=split, counts=counts, tokens=tokens, labels=labels, **fields)
        dataset._check_header()
        return dataset

    @property
    def files(self) -> list[Path]:
        """All that decides what training sees of this split."""
        labels = [] if self.labels is None else [_labels_path(self.directory, self.split)]
        return [self.directory / "dataset.json", self._path, *labels]

    @property
    def examples(self) -> int:
        """Number of examples that evaluation reads."""
        return -(-len(self.tokens) // self.length) if self.modality == "text" else len(self.tokens)

    def evaluation_batches(self, batch_size: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """The whole split in order, as (index of the first example, tokens).

        A text's last window, where it is shorter, comes as a batch of its own.

        Shapes: int64 (n, length) with n at most `batch_size`; the short window (1, rest).

        Raises:
            ValueError: a token is no id of the vocabulary.
        """
        if self.modality == "image":
            whole = self.tokens
        else:
            windows = len(self.tokens) // self.length
            whole = self.tokens[: windows * self.length].reshape(windows, self.length)
        for first in range(0, len(whole), batch_size):
            yield first, self.checked(whole[first : first + batch_size])
        if len(whole) < self.examples:
            yield len(whole), self.checked(self.tokens[whole.size :].reshape(1, -1))

    def evaluation_labels(self, first: int, count: int) -> NDArray[np.int64]:
        """The labels of the batch of `count` pictures that begins with the picture `first`: int64 (count,).

        Raises:
            ValueError: the dataset has no labels.
        """
        return np.array(self.known_labels()[first : first + count])

    def known_labels(self) -> NDArray[np.int64]:
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
                f"{self._path} holds the token {tokens.max()}, but the vocabulary has {self.vocabulary};"
                f" {_cure(self.directory)}"
            )
        return tokens.astype(np.int64)

    @property
    def _path(self) -> Path:
        return self.directory / f"{self.split}.npy"

    def _check_header(self) -> None:
        expected = (self.counts.get("tokens"),) if self.modality == "text" else (self.counts.get("images"), self.length)
        dtype = token_dtype(self.vocabulary)
        if self.tokens.shape != expected or self.tokens.dtype != dtype or not self.tokens.size:
            raise ValueError(
                f"{self._path} should be {dtype} {expected} and not empty, but is {self.tokens.dtype}"
                f" {self.tokens.shape}; {_cure(self.directory)}"
            )


def _labels_path(directory: Path, split: str) -> Path:
    return directory / f"{split}_labels.npy"


def _cure(directory: Path) -> str:
    return f"run `dvc repro encode@{directory.name}` again"
