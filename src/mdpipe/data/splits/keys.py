"""Shares of the keys: keys in an order by chance, the first of which are for validation and the next for testing."""

from fractions import Fraction
from hashlib import sha256
from math import ceil
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mdpipe.data.splits.held import WITHIN_DOCUMENTS


def key_orders(keys: NDArray[np.bytes_], seed: int) -> NDArray[np.uint64]:
    """The first 64 bits of sha256("SEED:KEY") of each key: (n,)."""
    return np.array([order_of(str(seed), key.decode()) for key in keys.tolist()], dtype=np.uint64)


def order_of(seed: str, key: str) -> int:
    """The first 64 bits of sha256("SEED:KEY"): where the key stands in an order by chance."""
    return int.from_bytes(sha256(f"{seed}:{key}".encode()).digest()[:8])


def thresholds(
    orders: NDArray[np.uint64], validation: float, test: float, modality: Literal["text", "image"]
) -> tuple[int, int]:
    """Below which orders keys are for validation, and from there on for testing.

    Of the n different orders the first ceil(validation * n) are for validation, the next ceil(test * n) for testing.

    Raises:
        ValueError: nothing would be left to train on.
    """
    distinct = np.unique(orders)
    held_out = _share(validation, len(distinct))
    trained_from = held_out + _share(test, len(distinct))
    if not trained_from < len(distinct):
        things = "documents" if modality == "text" else "pictures or groups of them"
        splits = 1 + (validation > 0) + (test > 0)
        hints = ["lower these shares"] if len(distinct) >= splits else [WITHIN_DOCUMENTS] if modality == "text" else []
        hint = ", or ".join([*hints, "give more data"])
        raise ValueError(
            f"the different {things} of the source ({len(distinct)}) cannot be split with validation = {validation} and"
            f" test = {test}: every split needs at least one; {hint}, in params.yaml"
        )
    return int(distinct[held_out]) if held_out else 0, int(distinct[trained_from])


def by_order(orders: NDArray[np.uint64], validation_below: int, test_below: int) -> NDArray[np.str_]:
    """The split of each key: (n,)."""
    splits = np.full(len(orders), "train", dtype="U10")
    splits[orders < test_below] = "test"
    splits[orders < validation_below] = "validation"
    return splits


def _share(share: float, count: int) -> int:
    # As a decimal, because 0.07 * 100 is 7.000000000000001 in floating point, whose ceiling is 8.
    return ceil(Fraction(str(share)) * count)
