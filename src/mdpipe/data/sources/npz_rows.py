"""Arrays in .npz files, row after row: they are unpacked as they are read, so that only some rows are in memory."""

import lzma
import math
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

BROKEN = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, UnicodeError, OSError)
"""What `zipfile` raises for an archive that is none, or is damaged."""


@dataclass(frozen=True)
class Rows:
    """An array that is read once, from its beginning on."""

    name: str
    """That of the file and of the array in it, for messages."""
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    stream: IO[bytes]
    """Its content."""

    def batches(self, count: int) -> Iterator[NDArray[Any]]:
        """All rows in order, so many at a time: (count, ...), and the last batch may have fewer.

        Raises:
            ValueError: there are fewer or more rows than the array's header says.
        """
        width = self.dtype.itemsize * math.prod(self.shape[1:])
        for start in range(0, self.shape[0], count):
            rows = min(count, self.shape[0] - start)
            content = self.stream.read(rows * width)
            if len(content) != rows * width:
                raise ValueError(f"{self.name} ends before what its header promises; replace the file")
            if start + rows == self.shape[0] and self.stream.read(1):
                raise ValueError(f"{self.name} is longer than its header says; replace the file")
            yield np.frombuffer(content, self.dtype).reshape(rows, *self.shape[1:])


@contextmanager
def opened_arrays(path: Path, fields: Sequence[str]) -> Iterator[list[Rows]]:
    """Some arrays of an .npz file, to be read side by side.

    Raises:
        ValueError: the file is truncated, damaged or no .npz, has no such array, or one that is not in C order.
    """
    try:
        with zipfile.ZipFile(path) as archive, ExitStack() as streams:
            yield [_rows(path, field, streams.enter_context(_member(archive, path, field))) for field in fields]
    except BROKEN as error:
        why = str(error) or type(error).__name__
        raise ValueError(f"{path} is truncated, damaged or no .npz file ({why}); replace it") from None


def _member(archive: zipfile.ZipFile, path: Path, field: str) -> IO[bytes]:
    if f"{field}.npy" not in archive.namelist():
        there = ", ".join(name.removesuffix(".npy") for name in archive.namelist()) or "none"
        raise ValueError(f"{path} has no array {field!r}, only {there}; correct the source's settings in params.yaml")
    return archive.open(f"{field}.npy")


def _rows(path: Path, field: str, stream: IO[bytes]) -> Rows:
    name = f"{path}[{field!r}]"
    try:
        version = np.lib.format.read_magic(stream)
        # Later versions are for structured arrays alone.
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, in_fortran_order, dtype = read(stream)
    except ValueError as error:
        raise ValueError(f"{name} has a broken header ({error}); replace the file") from None
    if in_fortran_order:
        raise ValueError(f"{name} is in Fortran order; save it again from numpy.ascontiguousarray(...)")
    return Rows(name, dtype, shape, stream)
