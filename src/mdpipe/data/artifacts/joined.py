"""Arrays joined along their first axis without being copied: what shards look like to who reads them."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Any, Generic, TypeVar, overload

import numpy as np
from numpy.typing import DTypeLike, NDArray

Scalar = TypeVar("Scalar", bound=np.generic)


class Joined(Generic[Scalar]):
    """Several arrays of the same type and row shape, read as one; only what is asked for is copied."""

    def __init__(self, arrays: Sequence[NDArray[Scalar]]) -> None:
        first = arrays[0]
        if any(array.dtype != first.dtype or array.shape[1:] != first.shape[1:] for array in arrays):
            raise ValueError(f"arrays of {sorted({(str(a.dtype), a.shape[1:]) for a in arrays})} cannot be joined")
        self._arrays = arrays
        self._starts = np.cumsum([0, *(len(array) for array in arrays)])
        self.dtype = first.dtype
        self.shape = (int(self._starts[-1]), *first.shape[1:])

    def __len__(self) -> int:
        return int(self.shape[0])

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape))

    @overload
    def __getitem__(self, rows: slice) -> NDArray[Scalar]: ...
    @overload
    def __getitem__(self, rows: NDArray[np.integer]) -> NDArray[Scalar]: ...
    def __getitem__(self, rows: slice | NDArray[np.integer]) -> NDArray[Scalar]:
        """Rows by a slice without a step, or by an array of indices (n,) from 0 on."""
        if isinstance(rows, slice):
            if rows.step not in (None, 1):
                raise ValueError(f"joined arrays are not read in steps of {rows.step}")
            return self._between(*rows.indices(len(self))[:2])
        result = np.empty((len(rows), *self.shape[1:]), dtype=self.dtype)
        places = np.searchsorted(self._starts, rows, side="right") - 1
        for place in np.unique(places):
            here = places == place
            result[here] = self._arrays[place][rows[here] - self._starts[place]]
        return result

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        return np.concatenate(self._arrays).astype(dtype or self.dtype, copy=False)

    def _between(self, first: int, end: int) -> NDArray[Scalar]:
        # Only arrays that have some of it are looked at: there may be hundreds, and a batch is many windows.
        places = range(bisect_right(self._starts, first) - 1, bisect_left(self._starts, end))
        found = [(self._starts[place], self._arrays[place]) for place in places]
        parts = [array[max(first - start, 0) : end - start] for start, array in found]
        return parts[0] if len(parts) == 1 else np.concatenate(parts or [self._arrays[0][:0]])


def joined(arrays: Sequence[NDArray[Scalar]]) -> NDArray[Scalar] | Joined[Scalar]:
    """The arrays one after another; a single one as it is."""
    return arrays[0] if len(arrays) == 1 else Joined(arrays)
