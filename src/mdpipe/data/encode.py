"""Encoding: from raw material to the folder that `EncodedDataset` opens."""

from contextlib import ExitStack
from pathlib import Path

import numpy as np

from mdpipe.data.artifacts.arrays import ArrayFile
from mdpipe.data.artifacts.aside import folder_aside
from mdpipe.data.artifacts.stable_json import write_json
from mdpipe.data.encoded import token_dtype
from mdpipe.data.pixels import quantize, tile
from mdpipe.data.raw import Document, read_documents, read_images
from mdpipe.data.splits import SPLITS, assign_splits, text_splits
from mdpipe.data.tokenizers import Tokenizer

IMAGES_AT_ONCE = 1024
"""Pictures that are cut and quantized together: enough to be fast, few enough for any memory."""


def encode_text(
    raw: Path, tokenizer: Tokenizer, directory: Path, length: int, seed: int, validation: float, test: float
) -> None:
    """Tokenize every document, each followed by the tokenizer's separator, into one stream a split.

    Raises:
        ValueError: a split would be empty, or the training split is shorter than one window.
    """
    splits = text_splits(raw, seed, validation, test)
    with folder_aside(directory) as folder, ExitStack() as files:
        streams = {split: _TokenStream(folder / f"{split}.npy", tokenizer, files) for split in SPLITS}
        for document, split in zip(read_documents(raw), splits, strict=True):
            streams[split].append(document)
        if streams["train"].counts["tokens"] < length:
            raise ValueError(
                f"the training split of {raw} has {streams['train'].counts['tokens']} tokens, fewer than one window of"
                f" length = {length}; lower the dataset's `length` in params.yaml, or give more text"
            )
        np.save(folder / "unigram.npy", streams["train"].unigram, allow_pickle=False)
        _finish_text(folder, tokenizer, length, streams)


def encode_corpus(raw: Path, tokenizer: Tokenizer, directory: Path, length: int) -> None:
    """Tokenize a whole source as one split, "test": a corpus that a model of other text is measured on.

    Raises:
        ValueError: no token is left of the corpus.
    """
    with folder_aside(directory) as folder, ExitStack() as files:
        stream = _TokenStream(folder / "test.npy", tokenizer, files)
        for document in read_documents(raw):
            stream.append(document)
        _finish_text(folder, tokenizer, length, {"test": stream})


def encode_images(
    raw: Path, levels: int, size: int, stride: int, directory: Path, seed: int, validation: float, test: float
) -> None:
    """Cut the pictures into tiles and quantize them; groups of pictures stay together.

    Training tiles lie `stride` apart and may overlap; held-out tiles lie side by side. A tile has its picture's label.

    Raises:
        ValueError: a split would be empty, tiles do not fit the pictures, or there are more levels than pixel values.
    """
    pictures = read_images(raw)
    splits = np.array(assign_splits([str(group) for group in pictures.groups], seed, validation, test))
    shape = (size, size, pictures.images.shape[3])
    length = int(np.prod(shape))
    counts = {}
    unigram = np.zeros(levels, dtype=np.int64)
    with folder_aside(directory) as folder:
        for split in SPLITS:
            members = np.flatnonzero(splits == split)
            with ArrayFile(folder / f"{split}.npy", token_dtype(levels), (length,)) as file:
                for first in range(0, len(members), IMAGES_AT_ONCE):
                    images = quantize(
                        pictures.images[members[first : first + IMAGES_AT_ONCE]], pictures.maximum, levels
                    )
                    tokens = tile(images, size, stride if split == "train" else size).reshape(-1, length)
                    file.append(tokens)
                    if split == "train":
                        unigram += np.bincount(tokens.ravel(), minlength=levels)
            counts[split] = {"images": file.rows, "tokens": file.rows * length}
            if pictures.labels is not None:
                labels = np.repeat(pictures.labels[members], file.rows // len(members))
                np.save(folder / f"{split}_labels.npy", labels, allow_pickle=False)
        np.save(folder / "unigram.npy", unigram, allow_pickle=False)
        _write_header(folder, "image", "pixels", levels, shape, counts, pictures.classes)


class _TokenStream:
    """One split of text on its way to its file: tokens, counts of what they decode to, and counts of each token."""

    def __init__(self, path: Path, tokenizer: Tokenizer, files: ExitStack) -> None:
        self.counts = {"documents": 0, "tokens": 0, "bytes": 0, "characters": 0}
        self.unigram = np.zeros(tokenizer.vocabulary, dtype=np.int64)
        self._tokenizer = tokenizer
        self._separator = np.array(tokenizer.separator, dtype=np.int64)
        self._file = files.enter_context(ArrayFile(path, token_dtype(tokenizer.vocabulary)))

    def append(self, document: Document) -> None:
        ids = self._tokenizer.encode(document.text)
        if not len(ids):  # a lossy tokenizer may leave nothing of a document, which then needs no separator either
            return
        tokens = np.concatenate([ids, self._separator])
        decoded = document.text if self._tokenizer.lossless else self._tokenizer.decode(tokens)
        self._file.append(tokens)
        self.unigram += np.bincount(tokens, minlength=len(self.unigram))
        self.counts["documents"] += 1
        self.counts["tokens"] += len(tokens)
        self.counts["characters"] += len(decoded)
        self.counts["bytes"] += len(decoded.encode())


def _finish_text(folder: Path, tokenizer: Tokenizer, length: int, streams: dict[str, _TokenStream]) -> None:
    empty = [split for split, stream in streams.items() if not stream.counts["tokens"]]
    if empty:
        raise ValueError(
            f"no token is left of the {empty[0]} split: the tokenizer {tokenizer.kind!r} drops all of its text; choose"
            " another tokenizer in params.yaml, or other text"
        )
    tokenizer.save(folder)
    counts = {split: stream.counts for split, stream in streams.items()}
    _write_header(folder, "text", tokenizer.kind, tokenizer.vocabulary, (length,), counts)


def _write_header(
    folder: Path,
    modality: str,
    tokenizer: str,
    vocabulary: int,
    shape: tuple[int, ...],
    counts: dict[str, dict[str, int]],
    classes: int = 0,
) -> None:
    header = {
        "modality": modality,
        "tokenizer": tokenizer,
        "vocabulary": vocabulary,
        "shape": list(shape),
        "length": int(np.prod(shape)),
        "classes": classes,
        "splits": counts,
    }
    write_json(folder / "dataset.json", header)
