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

from mdpipe.data.sources.archives import BLOCK, MOST_EXPANSION, refuse_joined
from mdpipe.messages import printable, reason

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
        """All rows in order, so many at a time: (count, ...), and the last batch may have fewer."""
        width = self.dtype.itemsize * math.prod(self.shape[1:])
        for start in range(0, self.shape[0], count):
            rows = min(count, self.shape[0] - start)
            content = self.stream.read(rows * width)
            yield np.frombuffer(content, self.dtype).reshape(rows, *self.shape[1:])


def check_array(archive: zipfile.ZipFile, path: Path, field: str, key: str = "settings") -> None:
    """Check that an array of an .npz file is there once and is as large as its header says, before it is read.

    Args:
        archive: the file, opened.
        path: its place, for messages.
        field: the name of the array.
        key: what of the source names it.

    Raises:
        ValueError: there is no such array or there are two, its header is broken or says another size than the archive,
            it unpacks to many times the size that it has there, or another archive stands before this one.
    """
    names = archive.namelist()
    if (found := names.count(f"{field}.npy")) != 1:
        there = ", ".join(printable(name.removesuffix(".npy")) for name in names) or "none"
        raise ValueError(
            f"{path} has {found} arrays {field!r}; save it again with numpy.savez_compressed"
            if found
            else f"{path} has no array {field!r}, only {there}; correct the source's {key} in params.yaml"
        )
    refuse_joined(archive, path)
    entry, name = archive.getinfo(f"{field}.npy"), f"{path}[{field!r}]"
    with archive.open(entry) as stream:
        shape, _, dtype = _header(name, stream)
        content = entry.file_size - stream.tell()
    if content != dtype.itemsize * math.prod(shape) and not dtype.hasobject:
        raise ValueError(
            f"{name} has {content:,} bytes and is {dtype} of shape {shape} by its header; replace the file, which is"
            " truncated or damaged"
        )
    if entry.file_size > MOST_EXPANSION * max(entry.compress_size, BLOCK):
        raise ValueError(
            f"{name} unpacks from {entry.compress_size:,} to {entry.file_size:,} bytes: a decompression bomb; save it"
            " again with numpy.savez if you trust it"
        )


@contextmanager
def opened_arrays(path: Path, fields: Sequence[str]) -> Iterator[list[Rows]]:
    """Some arrays of an .npz file, to be read side by side.

    Raises:
        ValueError: the file is truncated, damaged or no .npz, has no such array, or one that is not in C order.
    """
    try:
        with zipfile.ZipFile(path) as archive, ExitStack() as streams:
            for field in fields:
                check_array(archive, path, field)
            yield [_rows(path, field, streams.enter_context(archive.open(f"{field}.npy"))) for field in fields]
    except BROKEN as error:
        raise ValueError(f"{path} is truncated, damaged or no .npz file ({reason(error)}); replace it") from None


def _header(name: str, stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, whether it is in Fortran order, and type; any size is possible, but no negative one."""
    try:
        version = np.lib.format.read_magic(stream)
        # Later versions are for structured arrays alone.
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, in_fortran_order, dtype = read(stream)
        if any(isinstance(size, bool) or size < 0 for size in shape):
            raise ValueError(f"shape is not valid: {shape}")
    except ValueError as error:
        raise ValueError(f"{name} has a broken header ({reason(error)}); replace the file") from None
    return shape, in_fortran_order, dtype


def _rows(path: Path, field: str, stream: IO[bytes]) -> Rows:
    name = f"{path}[{field!r}]"
    shape, in_fortran_order, dtype = _header(name, stream)
    if in_fortran_order:
        raise ValueError(f"{name} is in Fortran order; save it again from numpy.ascontiguousarray(...)")
    return Rows(name, dtype, shape, stream)
