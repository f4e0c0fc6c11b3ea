"""Encoded datasets: the tokens of one split, memory-mapped.

dataset.json                      modality, vocab_size, shape, seq_len, tokenizer, classes, packing, counts of splits,
                                  and the names of classes, if any
train-00000.npy, ...              text: the stream of tokens in shards; images: (n, H*W*C) in the order H, W, C
train_documents.npy               text: int64 (documents,), the position in the stream at which each document begins;
                                  not of splits by `windows`, whose neighboring windows are from anywhere in the text
train_labels-00000.npy, ...       labeled images: int64 (n,), from 0 to classes - 1
unigram.npy                       int64 (V,): how often each token occurs in the training split
manifest.json, manifest.parquet   origin and contents
tokenizer.json                    text: the tokenizer,
sentencepiece.model, model.json   and the file of its library

Shapes: B batch, L seq_len, N examples, V vocab_size.
"""

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray
from pydantic import ConfigDict, Field

from mdpipe.data.artifacts.arrays import ConcatArray, concat_arrays, open_array, open_labels
from mdpipe.data.artifacts.files import Header, read_header, write_json

Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[int, Field(ge=0)]

BLOCKS = 20
"""Blocks of examples whose differences give the standard error of data that are mostly one document or image."""


def evenly_spaced(count: int, most: int) -> NDArray[np.int64]:
    """Return at most `most` of the indices 0 to count - 1, evenly spaced from the first to the last."""
    return np.linspace(0, count - 1, min(most, count)).astype(np.int64)


def token_dtype(vocab_size: int) -> DTypeLike:
    """Return the smallest unsigned type that holds every id."""
    return np.min_scalar_type(vocab_size - 1)


class DatasetHeader(Header):
    """Content of dataset.json."""

    modality: Literal["text", "image"]
    tokenizer: str
    """The tokenizer's kind, "pixels" for images."""
    vocab_size: Positive
    shape: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=3)]
    """(L,) for text, (H, W, C) for images."""
    seq_len: Positive
    """Tokens per example: L, or H * W * C."""
    classes: NonNegative
    """Number of classes, 0 without labels."""
    splits: dict[str, dict[str, int]]
    """The counts of each split."""
    drop_last: bool = False
    """True for text that is a number of whole windows, which training reads in random order."""
    wrap_ids: tuple[NonNegative, ...] = ()
    """Tokens that every window begins and ends with; the stream does not include them."""
    separate_documents: bool = False
    """True for text whose documents are evaluated in separate windows."""
    class_names: tuple[str, ...] = ()
    """Names of the classes, if the source has any."""


class EncodedDataset(DatasetHeader):
    """A split of an encoded dataset; open it with `EncodedDataset.open`.

    An example is a window of `seq_len` tokens of text, or an image. Evaluation reads each token exactly once: text in
    consecutive windows, the last of which may be shorter unless `drop_last`, of the whole stream or of each document.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    directory: Path
    split: str
    tokens: NDArray[np.unsignedinteger] | ConcatArray[np.unsignedinteger]
    """Text: (tokens,), without those that wrap windows. Images: (N, L)."""
    labels: NDArray[np.int64] | ConcatArray[np.int64] | None
    """(N,), the class of each image, if there are labels."""

    @property
    def counts(self) -> Mapping[str, int]:
        """Return the counts of the split.

        Text: documents, tokens, bytes, characters, words. Images: images, tokens, and `tiles_per_image`, the number of
        neighboring examples that are cut from one larger image, if there are several.
        """
        return self.splits[self.split]

    @classmethod
    def open(cls, directory: Path, split: str) -> Self:
        """Memory-map a split and check it against dataset.json.

        Raises:
            ValueError: No such split, or a file is missing, truncated, or disagrees with dataset.json.
        """
        hint = _hint(directory)
        header = read_header(directory / "dataset.json", DatasetHeader, hint)
        if split not in header.splits:
            raise ValueError(f"{directory} has no split {split!r}; it has {', '.join(sorted(header.splits))}")
        arrays = [open_array(path, hint) for path in _shards(directory, split)]
        labels = None
        try:
            tokens = concat_arrays(arrays)
        except ValueError as error:
            raise ValueError(f"{directory}, split {split}: {error}; {hint}") from None
        if header.classes:
            paths = [directory / f"{split}_labels-{number:05d}.npy" for number in range(len(arrays))]
            pairs = zip(paths, arrays, strict=True)
            labels = concat_arrays([open_labels(path, len(array), header.classes, hint) for path, array in pairs])
        dataset = cls(directory=directory, split=split, tokens=tokens, labels=labels, **dict(header))
        dataset._check_header()
        return dataset

    @property
    def files(self) -> list[Path]:
        """Return all files that decide what training reads of this split."""
        labels = [] if self.labels is None else _shards(self.directory, f"{self.split}_labels")
        return [self.directory / "dataset.json", *_shards(self.directory, self.split), *labels]

    @property
    def examples(self) -> int:
        """Return the number of examples that evaluation reads."""
        if self.separate_documents:
            return len(self._evaluation_windows[0])
        return -(-len(self.tokens) // self.stream_tokens) if self.modality == "text" else len(self.tokens)

    @cached_property
    def stream_tokens(self) -> int:
        """Return the number of tokens of the stream in a window of text."""
        return self.seq_len - 2 * len(self.wrap_ids)

    @cached_property
    def document_starts(self) -> NDArray[np.int64] | None:
        """Return the position in `tokens` of each document, ascending; None for images and splits by `windows`.

        Raises:
            ValueError: The file is missing, truncated or does not match the tokens.
        """
        if not self.counts.get("documents"):
            return None
        path, hint = self.directory / f"{self.split}_documents.npy", _hint(self.directory)
        starts = open_array(path, hint)
        is_valid = starts.dtype == np.int64 and starts.ndim == 1 and len(starts)
        if not is_valid or starts[0] != 0 or starts[-1] >= len(self.tokens):
            raise ValueError(f"{path} should be int64 positions of {len(self.tokens)} tokens, from 0 on; {hint}")
        return np.asarray(starts)

    @cached_property
    def clusters(self) -> tuple[str, NDArray[np.int64]]:
        """Return the kind of the clusters for standard errors, and the cluster of each example, (N,).

        Windows are clustered by "document": the one that the window's middle token is from. Most of the window is from
        it if more than half of it is from one document. The tiles of a larger image are one cluster ("image"). Where
        one document or image dominates, so that the effective number of clusters, (sum n_c)^2 / sum n_c^2 for clusters
        of n_c tokens, is below two, clusters are a "block" of consecutive examples, at most `BLOCKS` of them. The
        windows of a split by `windows` are a cluster each ("window").
        """
        if self.modality == "text":
            return self.window_clusters(self.stream_tokens)
        images = np.arange(self.examples) // self.counts.get("tiles_per_image", 1)
        return _blocks_if_dominated("image", images, np.full(self.examples, self.seq_len))

    def window_clusters(self, stride: int) -> tuple[str, NDArray[np.int64]]:
        """Return the kind and the cluster (N,) of windows of text `stride` tokens apart, by their new tokens."""
        starts, contexts, sizes = self.sliding_windows(stride)
        if self.document_starts is None:
            return "window", np.arange(len(starts))
        new = sizes - contexts
        documents = np.searchsorted(self.document_starts, starts + contexts + new // 2, side="right") - 1
        return _blocks_if_dominated("document", documents, new)

    @cached_property
    def _evaluation_windows(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the position and number of tokens of each window of text that evaluation reads, (N,) each."""
        starts, _, sizes = self.sliding_windows(self.stream_tokens)
        return starts, sizes

    def sliding_windows(self, stride: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return windows of text, each of which begins `stride` tokens after the one before.

        All tokens of the first window of the stream, or of each document if these are evaluated separately, are new. In
        the later ones the first `stream_tokens - stride` are the context of the new ones. Each token is new once.

        Returns:
            Position of the window in the stream, size of its context, and number of all of its tokens, (N,) each.

        Raises:
            ValueError: The stride is not between 1 and the number of tokens in a window.
        """
        if not 1 <= stride <= self.stream_tokens:
            raise ValueError(f"a stride of {stride} is not between 1 and the window of {self.stream_tokens} tokens")
        starts = self.document_starts if self.separate_documents else None
        begins = np.zeros(1, dtype=np.int64) if starts is None else starts
        ends = np.append(begins[1:], len(self.tokens))
        counts = 1 - (-np.maximum(ends - begins - self.stream_tokens, 0) // stride)
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        positions = np.repeat(begins, counts) + within * stride
        contexts = np.where(within > 0, self.stream_tokens - stride, 0)
        return positions, contexts, np.minimum(np.repeat(ends, counts) - positions, self.stream_tokens)

    def windows(self, offsets: NDArray[np.integer], size: int | None = None) -> NDArray[np.int64]:
        """Return the windows of text that begin at these positions of the stream: int64 (B, L).

        Args:
            offsets: The positions, (B,).
            size: Number of the stream's tokens in a window; `stream_tokens` by default.

        Raises:
            ValueError: A token is not an id of the vocabulary.
        """
        size = size or self.stream_tokens
        wrap = np.array(self.wrap_ids, dtype=self.tokens.dtype)
        rows = [np.concatenate([wrap, self.tokens[first : first + size], wrap]) for first in offsets.tolist()]
        return self.validate_tokens(np.stack(rows)) if rows else np.empty((0, self.seq_len), dtype=np.int64)

    def spaced_examples(self, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
        """Return up to `count` whole examples, evenly spaced over the split: (N, L), and their labels (N,), if any.

        Raises:
            ValueError: There are fewer than two, or a token is not an id of the vocabulary.
        """
        total = len(self.tokens) if self.modality == "image" else len(self.tokens) // self.stream_tokens
        if total < 2:
            raise ValueError(
                f"the {self.split} split of {self.directory} has {total} whole examples, too few to validate on; hold"
                " out a larger fraction of the data in params.yaml"
            )
        indices = np.arange(min(count, total)) * total // min(count, total)
        if self.modality == "text":
            return self.windows(indices * self.stream_tokens), None
        labels = None if self.labels is None else np.array(self.labels[indices], dtype=np.int64)
        return self.validate_tokens(self.tokens[indices]), labels

    def evaluation_batches(self, batch_size: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Yield the whole split as (indices of examples, tokens): the longest windows of text first, else in order.

        Shapes: indices int64 (B,), tokens int64 (B, L), with B at most `batch_size`. Windows of one batch are equally
        long.

        Raises:
            ValueError: A token is not an id of the vocabulary.
        """
        if self.modality == "image":
            for first in range(0, len(self.tokens), batch_size):
                indices = np.arange(first, min(first + batch_size, len(self.tokens)))
                yield indices, self.validate_tokens(self.tokens[first : first + batch_size])
            return
        offsets, sizes = self._evaluation_windows
        by_length = np.argsort(-sizes, kind="stable")
        for members in np.split(by_length, np.flatnonzero(np.diff(sizes[by_length])) + 1):
            for first in range(0, len(members), batch_size):
                indices = members[first : first + batch_size]
                yield indices, self.windows(offsets[indices], int(sizes[indices[0]]))

    def require_labels(self) -> NDArray[np.int64] | ConcatArray[np.int64]:
        """Return the labels.

        Raises:
            ValueError: There are none.
        """
        if self.labels is None:
            raise ValueError(f"{self.directory} has no labels; say in params.yaml which `labels` its source has")
        return self.labels

    def unigram(self) -> NDArray[np.int64]:
        """Return how often each token occurs in the training split: int64 (V,).

        Raises:
            ValueError: The file is missing, truncated or not of this shape.
        """
        path, hint = self.directory / "unigram.npy", _hint(self.directory)
        return np.array(open_array(path, hint, np.int64, (self.vocab_size,)))

    def validate_tokens(self, tokens: NDArray[np.unsignedinteger]) -> NDArray[np.int64]:
        """Return tokens as int64 after checking that they are ids; an embedding would fail later and say less.

        Raises:
            ValueError: A token is not below the vocabulary size.
        """
        if tokens.max() >= self.vocab_size:
            raise ValueError(
                f"{self._pattern} holds the token {tokens.max()}, but the vocabulary has {self.vocab_size};"
                f" {_hint(self.directory)}"
            )
        return tokens.astype(np.int64)

    @property
    def _pattern(self) -> Path:
        files = _shards(self.directory, self.split)
        return files[0] if len(files) == 1 else self.directory / f"{self.split}-*.npy"

    def _check_header(self) -> None:
        if self.modality == "text" and "words" not in self.counts:
            raise ValueError(
                f"{self.directory} was encoded by an earlier version, without the documents' boundaries and the number"
                f" of words; {_hint(self.directory)}"
            )
        if self.modality == "image":
            expected: tuple[Any, ...] = (self.counts.get("images"), self.seq_len)
        elif self.drop_last:
            expected = (self.counts.get("tokens", 0) // self.seq_len * self.stream_tokens,)
        else:
            expected = (self.counts.get("tokens"),)
        dtype = token_dtype(self.vocab_size)
        if self.tokens.shape != expected or self.tokens.dtype != dtype or not self.tokens.size:
            raise ValueError(
                f"{self._pattern} should be {dtype} {expected} and not empty, but is {self.tokens.dtype}"
                f" {self.tokens.shape}; {_hint(self.directory)}"
            )


def _blocks_if_dominated(
    kind: str, clusters: NDArray[np.int64], sizes: NDArray[np.int64]
) -> tuple[str, NDArray[np.int64]]:
    """Return the kind and the clusters (N,) of consecutive examples, or blocks where one cluster has most tokens."""
    tokens = np.bincount(clusters, weights=sizes)
    if tokens.sum() ** 2 < 2 * np.square(tokens).sum():
        return "block", np.arange(len(clusters)) * min(BLOCKS, len(clusters)) // len(clusters)
    return kind, clusters


def write_header(folder: Path, header: DatasetHeader) -> None:
    """Write dataset.json."""
    unnamed = {"class_names"} if not header.class_names else set()
    write_json(folder / "dataset.json", header.model_dump(mode="json", exclude=unnamed))


def _shards(directory: Path, name: str) -> list[Path]:
    """Return the files of a split in order; the first one in any case, so that a missing one is named."""
    return sorted(directory.glob(f"{name}-[0-9]*.npy")) or [directory / f"{name}-00000.npy"]


def _hint(directory: Path) -> str:
    return f"run `dvc repro encode@{directory.name}` again"
