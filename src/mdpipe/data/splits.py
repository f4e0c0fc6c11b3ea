"""Splits: which documents or pictures are for training, validation and testing.

Things that share a key share a split, so nothing that is held out was ever trained on.
"""

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from hashlib import sha256
from pathlib import Path

from mdpipe.data.raw import read_documents

SPLITS = ("train", "validation", "test")


def assign_splits(keys: Sequence[str], seed: int, validation: float, test: float) -> list[str]:
    """The split of each key, as a function of the set of keys and the seed alone.

    The n different keys are put in the order of sha256("SEED:KEY"); the first ceil(validation * n) are "validation",
    the next ceil(test * n) are "test", the rest are "train".

    Raises:
        ValueError: a split would be empty.
    """
    ordered = sorted(set(keys), key=lambda key: sha256(f"{seed}:{key}".encode()).digest())
    held_out = _share(validation, len(ordered))
    trained_from = held_out + _share(test, len(ordered))
    if not 0 < held_out < trained_from < len(ordered):
        raise ValueError(
            f"{len(ordered)} different documents or groups of pictures cannot be split with validation = {validation}"
            f" and test = {test}: every split needs at least one; lower these shares in params.yaml, or give more data"
        )
    names = ["validation"] * held_out + ["test"] * (trained_from - held_out)
    names += ["train"] * (len(ordered) - trained_from)
    split_of = dict(zip(ordered, names, strict=True))
    return [split_of[key] for key in keys]


def text_splits(raw: Path, seed: int, validation: float, test: float) -> list[str]:
    """The split of each document of a raw text folder; copies of one text share theirs."""
    keys = [sha256(document.text.encode()).hexdigest() for document in read_documents(raw)]
    return assign_splits(keys, seed, validation, test)


def training_texts(raw: Path, seed: int, validation: float, test: float) -> Iterator[str]:
    """The texts of the training split: all that a tokenizer may be fitted to."""
    splits = text_splits(raw, seed, validation, test)
    for document, split in zip(read_documents(raw), splits, strict=True):
        if split == "train":
            yield document.text


def _share(share: float, count: int) -> int:
    # As a decimal, because 0.07 * 100 is 7.000000000000001 in floating point, whose ceiling is 8.
    return math.ceil(Fraction(str(share)) * count)
