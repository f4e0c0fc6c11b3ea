"""Training batches: what the model sees at a step, as a pure function of (seed, step, example).

Row i of a batch is the same whoever asks for it, so any number of workers make the same global batch.
"""

from functools import lru_cache
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from mdpipe.data.encoded.dataset import EncodedDataset


def training_batch(
    dataset: EncodedDataset, seed: int, step: int, batch_size: int, examples: range | None = None
) -> NDArray[np.int64]:
    """The rows `examples` of the global batch at a step; all of them by default.

    Text as one stream: windows at offsets drawn uniformly from all there are. Blocks of text, and pictures: one random
    order of all of them after another, each once in every order.

    Shapes: int64 (len(examples), length).

    Raises:
        ValueError: the text is shorter than a window, a row lies outside the batch, or a token is no id.
    """
    index = _index(batch_size, examples)
    if dataset.modality == "image":
        pictures = dataset.tokens[_in_turn(len(dataset.tokens), seed, step * batch_size + index)]
        return dataset.checked(pictures) if len(pictures) else pictures.astype(np.int64)
    if dataset.blocks:
        blocks = _in_turn(dataset.examples, seed, step * batch_size + index)
        return dataset.windows(blocks * dataset.content)
    return dataset.windows(_offsets(dataset, seed, step, batch_size)[index])


def training_labels(
    dataset: EncodedDataset, seed: int, step: int, batch_size: int, examples: range | None = None
) -> NDArray[np.int64]:
    """The classes of the pictures that `training_batch` gives for the same arguments.

    Shapes: int64 (len(examples),).

    Raises:
        ValueError: the dataset has no labels, or a row lies outside the batch.
    """
    labels = dataset.known_labels()
    index = _index(batch_size, examples)
    return np.array(labels[_in_turn(len(labels), seed, step * batch_size + index)])


def _index(batch_size: int, examples: range | None) -> NDArray[np.int64]:
    """Rows of a global batch as an array; all of them by default."""
    rows = range(batch_size) if examples is None else examples
    if len(rows) and (min(rows) < 0 or max(rows) >= batch_size):
        raise ValueError(f"examples {rows} are not rows of a batch of {batch_size}")
    return np.arange(rows.start, rows.stop, rows.step)


def _offsets(dataset: EncodedDataset, seed: int, step: int, batch_size: int) -> NDArray[np.int64]:
    """Where each window of a global batch of text begins: (batch_size,)."""
    offsets = len(dataset.tokens) - dataset.length + 1
    if offsets < 1:
        raise ValueError(
            f"the {dataset.split} split of {dataset.directory} has {len(dataset.tokens)} tokens, fewer than one window"
            f" of length = {dataset.length}; lower the dataset's `length` in params.yaml, or give more text"
        )
    # 53 bits in [0, 1), times a count far below 2^53: no offset is favoured by more than one part in 2^53 / count.
    uniform = (_random_bits("text windows", seed, step, batch_size) >> np.uint64(11)) * 2.0**-53
    return (uniform * offsets).astype(np.int64)


def _in_turn(count: int, seed: int, positions: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which of `count` examples stand at these positions of the endless sequence of random orders."""
    epochs, places = np.divmod(positions, count)
    found = np.empty_like(places)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        found[here] = _order(count, seed, int(epoch))[places[here]]
    return found


@lru_cache(maxsize=2)  # a batch rarely touches more than two orders, and sorting all examples at each step is slow
def _order(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.argsort(_random_bits("picture order", seed, epoch, count), kind="stable")


def _random_bits(purpose: str, seed: int, block: int, count: int) -> NDArray[np.uint64]:
    """The first `count` words of a block of the Philox generator keyed by purpose and seed: uint64 (count,)."""
    key = int.from_bytes(sha256(f"{purpose}:{seed}".encode()).digest()[:16], "little")
    # The block is in the counter's upper half, so blocks are 2^128 draws apart and never meet.
    words: NDArray[np.uint64] = np.random.Philox(key=key, counter=block << 128).random_raw(count)
    return words
