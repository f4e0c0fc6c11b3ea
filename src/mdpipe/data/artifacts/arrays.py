"""Arrays in .npy files: memory-mapped with every defect named, and written row by row without knowing the end."""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray


def open_array(path: Path, cure: str) -> NDArray[Any]:
    """Memory-map an .npy file, read-only.

    Raises:
        ValueError: the file is missing, empty, truncated, too long, pickled or no .npy; the message ends with `cure`.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist; {cure}") from None
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path} is empty, truncated or no .npy file ({error}); {cure}") from None
    if not isinstance(array, np.memmap):
        raise ValueError(f"{path} is no .npy file; {cure}")  # noqa: TRY004
    expected, found = array.offset + array.nbytes, path.stat().st_size
    if found != expected:
        raise ValueError(f"{path} has {found} bytes where its header promises {expected}; {cure}")
    return array


def open_labels(path: Path, count: int, classes: int, cure: str) -> NDArray[np.int64]:
    """Memory-map the labels of `count` examples.

    Raises:
        ValueError: as `open_array`, or the array is not int64 (count,) from 0 to classes - 1.
    """
    labels = open_array(path, cure)
    if labels.dtype != np.int64 or labels.shape != (count,):
        raise ValueError(f"{path} should be int64 ({count},), not {labels.dtype} {labels.shape}; {cure}")
    if not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(
            f"{path} has labels from {labels.min()} to {labels.max()}, but there are {classes} classes; {cure}"
        )
    return labels


class ArrayFile:
    """An .npy file that grows along its first axis; `rows` is its length so far.

    Used as a context manager: the header, for which numpy reserves room, gets its final length on leaving.
    """

    def __init__(self, path: Path, dtype: DTypeLike, row_shape: tuple[int, ...] = ()) -> None:
        self.rows = 0
        self._dtype = np.dtype(dtype)
        self._row_shape = row_shape
        self._file = path.open("wb")
        self._write_header()

    def append(self, rows: NDArray[Any]) -> None:
        """Add rows of shape (n, *row_shape)."""
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
