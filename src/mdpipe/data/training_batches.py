"""Training batches of an encoded dataset, as functions of seed, step and row.

Shapes: B batch, L seq_len.
"""

from functools import lru_cache
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from mdpipe.data.dataset import EncodedDataset


def training_batch(
    dataset: EncodedDataset, seed: int, step: int, batch_size: int, examples: range | None = None
) -> NDArray[np.int64]:
    """Return the rows `examples` of the global batch at a step; all of them by default: int64 (B, L).

    A row is a function of (seed, step, row), so any number of processes make the same global batch. Text is read in
    windows at uniformly random offsets; with `drop_last`, windows are read like images: all of them once per epoch, in
    random order.

    Raises:
        ValueError: The text is shorter than a window, a row is outside the batch, or a token is not an id.
    """
    rows = _rows(batch_size, examples)
    if dataset.modality == "image":
        images = dataset.tokens[_epoch_order(len(dataset.tokens), seed, step * batch_size + rows)]
        return dataset.validate_tokens(images) if len(images) else images.astype(np.int64)
    if dataset.drop_last:
        windows = _epoch_order(dataset.examples, seed, step * batch_size + rows)
        return dataset.windows(windows * dataset.stream_tokens)
    return dataset.windows(_random_offsets(dataset, seed, step, batch_size)[rows])


def training_labels(
    dataset: EncodedDataset, seed: int, step: int, batch_size: int, examples: range | None = None
) -> NDArray[np.int64]:
    """Return the labels of the images that `training_batch` returns for the same arguments: int64 (B,).

    Raises:
        ValueError: The dataset has no labels, or a row is outside the batch.
    """
    labels = dataset.require_labels()
    rows = _rows(batch_size, examples)
    return np.array(labels[_epoch_order(len(labels), seed, step * batch_size + rows)])


def _rows(batch_size: int, examples: range | None) -> NDArray[np.int64]:
    rows = range(batch_size) if examples is None else examples
    if len(rows) and (min(rows) < 0 or max(rows) >= batch_size):
        raise ValueError(f"examples {rows} are not rows of a batch of {batch_size}")
    return np.arange(rows.start, rows.stop, rows.step)


def _random_offsets(dataset: EncodedDataset, seed: int, step: int, batch_size: int) -> NDArray[np.int64]:
    """Return the position of each window of a global batch of text: (batch_size,)."""
    offsets = len(dataset.tokens) - dataset.seq_len + 1
    if offsets < 1:
        raise ValueError(
            f"the {dataset.split} split of {dataset.directory} has {len(dataset.tokens)} tokens, fewer than one window"
            f" of seq_len = {dataset.seq_len}; lower the dataset's `seq_len` in params.yaml, or give more text"
        )
    # 53 bits in [0, 1), times a count far below 2^53: no offset is favored by more than one part in 2^53 / count.
    uniform = (_random_bits("text windows", seed, step, batch_size) >> np.uint64(11)) * 2.0**-53
    return (uniform * offsets).astype(np.int64)


def _epoch_order(count: int, seed: int, positions: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the examples at these positions of an endless sequence of epochs, each a random order of all examples."""
    epochs, within = np.divmod(positions, count)
    examples = np.empty_like(within)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        examples[here] = _permutation(count, seed, int(epoch))[within[here]]
    return examples


@lru_cache(maxsize=2)  # A batch rarely touches more than two epochs, and sorting all examples at each step is slow.
def _permutation(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.argsort(_random_bits("picture order", seed, epoch, count), kind="stable")


def _random_bits(purpose: str, seed: int, block: int, count: int) -> NDArray[np.uint64]:
    """Return the first `count` words of a block of the Philox generator keyed by purpose and seed: uint64 (count,)."""
    key = int.from_bytes(sha256(f"{purpose}:{seed}".encode()).digest()[:16], "little")
    # The block is in the counter's upper half, so blocks are 2^128 numbers apart and never overlap.
    words: NDArray[np.uint64] = np.random.Philox(key=key, counter=block << 128).random_raw(count)
    return words
