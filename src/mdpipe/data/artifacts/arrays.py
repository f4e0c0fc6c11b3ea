"""Arrays in .npy files: opened memory-mapped, written row by row, and concatenated without copies."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, overload

import numpy as np
from numpy.typing import DTypeLike, NDArray

Scalar = TypeVar("Scalar", bound=np.generic)


def open_array(
    path: Path, hint: str, dtype: DTypeLike | None = None, shape: tuple[int, ...] | None = None
) -> NDArray[Any]:
    """Memory-map an .npy file, read-only.

    Raises:
        ValueError: The file is missing, empty, truncated, too long, pickled, not a .npy file, or not of this dtype and
            shape; the message ends with `hint`.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist; {hint}") from None
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path} is empty, truncated or not a .npy file ({error}); {hint}") from None
    if not isinstance(array, np.memmap):
        raise ValueError(f"{path} is not a .npy file; {hint}")  # noqa: TRY004
    expected, found = array.offset + array.nbytes, path.stat().st_size
    if found != expected:
        raise ValueError(f"{path} has {found} bytes where its header promises {expected}; {hint}")
    if dtype is not None and (array.dtype != dtype or array.shape != shape):
        raise ValueError(f"{path} should be {np.dtype(dtype)} {shape}, not {array.dtype} {array.shape}; {hint}")
    return array


def open_labels(path: Path, count: int, classes: int, hint: str) -> NDArray[np.int64]:
    """Memory-map the labels of `count` examples.

    Raises:
        ValueError: As `open_array`, or the array is not int64 (count,) from 0 to classes - 1.
    """
    labels = open_array(path, hint, np.int64, (count,))
    if not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(
            f"{path} has labels from {labels.min()} to {labels.max()}, but there are {classes} classes; {hint}"
        )
    return labels


class ArrayFile:
    """An .npy file that grows along its first axis; `rows` is its current length.

    Used as a context manager: the header, for which numpy reserves space, gets the final length on leaving.
    """

    def __init__(self, path: Path, dtype: DTypeLike, row_shape: tuple[int, ...] = ()) -> None:
        self.rows = 0
        self._dtype = np.dtype(dtype)
        self._row_shape = row_shape
        self._file = path.open("wb")
        self._write_header()

    def append(self, rows: NDArray[Any]) -> None:
        """Append rows of shape (n, *row_shape)."""
        if rows.shape[1:] != self._row_shape:
            raise ValueError(f"rows of shape {rows.shape[1:]} do not fit an array of rows {self._row_shape}")
        self._file.write(np.ascontiguousarray(rows, dtype=self._dtype).tobytes())
        self.rows += len(rows)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.seek(0)
        self._write_header()
        self._file.close()

    def _write_header(self) -> None:
        description = np.lib.format.dtype_to_descr(self._dtype)
        header = {"descr": description, "fortran_order": False, "shape": (self.rows, *self._row_shape)}
        np.lib.format.write_array_header_1_0(self._file, header)


class ConcatArray(Generic[Scalar]):
    """Several arrays of the same type and row shape, read as one; only the rows that are read are copied."""

    def __init__(self, arrays: Sequence[NDArray[Scalar]]) -> None:
        first = arrays[0]
        if any(array.dtype != first.dtype or array.shape[1:] != first.shape[1:] for array in arrays):
            raise ValueError(
                f"arrays of {sorted({(str(a.dtype), a.shape[1:]) for a in arrays})} cannot be concatenated"
            )
        self._arrays = arrays
        self._starts = np.cumsum([0, *(len(array) for array in arrays)])
        self.dtype = first.dtype
        self.shape = (int(self._starts[-1]), *first.shape[1:])

    def __len__(self) -> int:
        return int(self.shape[0])

    @property
    def size(self) -> int:
        """Return the number of elements."""
        return int(np.prod(self.shape))

    @overload
    def __getitem__(self, rows: slice) -> NDArray[Scalar]: ...
    @overload
    def __getitem__(self, rows: NDArray[np.integer]) -> NDArray[Scalar]: ...
    def __getitem__(self, rows: slice | NDArray[np.integer]) -> NDArray[Scalar]:
        """Return rows by a slice without a step, or by an array of non-negative indices (n,)."""
        if isinstance(rows, slice):
            if rows.step not in (None, 1):
                raise ValueError(f"concatenated arrays are not read in steps of {rows.step}")
            return self._between(*rows.indices(len(self))[:2])
        result = np.empty((len(rows), *self.shape[1:]), dtype=self.dtype)
        owners = np.searchsorted(self._starts, rows, side="right") - 1
        for owner in np.unique(owners):
            here = owners == owner
            result[here] = self._arrays[owner][rows[here] - self._starts[owner]]
        return result

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        return np.concatenate(self._arrays).astype(dtype or self.dtype, copy=False)

    def _between(self, first: int, end: int) -> NDArray[Scalar]:
        # Visit only the arrays in range: there may be hundreds, and a batch reads many windows.
        owners = range(bisect_right(self._starts, first) - 1, bisect_left(self._starts, end))
        found = [(self._starts[owner], self._arrays[owner]) for owner in owners]
        slices = [array[max(first - start, 0) : end - start] for start, array in found]
        return slices[0] if len(slices) == 1 else np.concatenate(slices or [self._arrays[0][:0]])


def concat_arrays(arrays: Sequence[NDArray[Scalar]]) -> NDArray[Scalar] | ConcatArray[Scalar]:
    """Concatenate arrays without copies; a single array is returned as it is."""
    return arrays[0] if len(arrays) == 1 else ConcatArray(arrays)
