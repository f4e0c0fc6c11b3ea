"""The user's files that a source reads: one file, or those of a folder that fit a pattern."""

import bz2
import gzip
import io
import lzma
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

PART_BYTES = 32 * 2**20
"""What one process reads at a time, about."""

COMPRESSED = (".gz", ".bz2", ".xz", ".zst")


@dataclass(frozen=True)
class Found:
    """A file of a source."""

    name: str
    """Relative to the source's folder, so it does not depend on where that lies."""
    file: Path
    split: str | None
    """The split that its pattern stands for."""

    @property
    def size(self) -> int:
        """Bytes."""
        return self.file.stat().st_size

    @property
    def compressed(self) -> bool:
        """Whether it can only be read from its beginning on."""
        return self.file.suffix in COMPRESSED


def matching_files(path: Path, pattern: str | Mapping[str, str]) -> list[Found]:
    """Sorted by name: the path itself if it is a file, else the folder's files that fit the glob pattern.

    A mapping of the source's own splits to patterns gives the files of one split after those of another.

    Raises:
        ValueError: the path does not exist, no file fits, or one fits the patterns of two splits.
    """
    if path.is_file():
        return [Found(path.name, path, None)]
    if not path.is_dir():
        raise ValueError(f"{path} does not exist; correct the source's `path` in params.yaml")
    if isinstance(pattern, str):
        return _matching(path, pattern, None)
    found = [file for split, glob in sorted(pattern.items()) for file in _matching(path, glob, split)]
    twice = sorted(name for name, count in Counter(file.name for file in found).items() if count > 1)
    if twice:
        raise ValueError(f"{twice[0]} in {path} fits the `pattern` of two splits; make them exclude each other")
    return found


def _matching(path: Path, pattern: str, split: str | None) -> list[Found]:
    try:
        found = [(file.relative_to(path).as_posix(), file) for file in path.glob(pattern) if file.is_file()]
    except (ValueError, NotImplementedError) as error:
        raise ValueError(
            f"the source's pattern = {pattern!r} is no relative glob such as '**/*.txt' ({error})"
        ) from None
    if not found:
        raise ValueError(f"no file in the folder {path} fits {pattern!r}; correct the source's `path` or `pattern`")
    for name, _ in found:
        if any("\ud800" <= character <= "\udfff" for character in name):
            raise ValueError(f"{name!r} in {path} is no name in UTF-8; rename the file")
    return [Found(name, file, split) for name, file in sorted(found)]


@dataclass(frozen=True)
class FileGroup:
    """Some files of one split."""

    files: tuple[Found, ...]

    @property
    def split(self) -> str | None:
        """The split that their pattern stands for."""
        return self.files[0].split

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(found.size for found in self.files)


def in_groups(files: Sequence[Found]) -> Iterator[FileGroup]:
    """Neighbouring files of one split that together are about one part."""
    group: list[Found] = []
    size = 0
    for file in files:
        if group and (size + file.size > PART_BYTES or file.split != group[0].split):
            yield FileGroup(tuple(group))
            group, size = [], 0
        group.append(file)
        size += file.size
    if group:
        yield FileGroup(tuple(group))


@contextmanager
def opened(file: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, unpacked where its name ends in .gz, .bz2, .xz or .zst.

    Raises:
        ValueError: it is truncated or not what its name says.
    """
    try:
        if file.suffix in COMPRESSED and not file.stat().st_size:
            raise EOFError("it is empty")  # which gzip takes for no text
        with _open(file) as stream:
            yield stream
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        if file.suffix not in COMPRESSED:
            raise
        raise ValueError(f"{file} is truncated or no {file.suffix} file ({error}); replace it") from None


def _open(file: Path) -> IO[bytes]:
    match file.suffix:
        case ".gz":
            return cast("IO[bytes]", gzip.open(file, "rb"))
        case ".bz2":
            return bz2.open(file, "rb")
        case ".xz":
            return lzma.open(file, "rb")
        case ".zst":
            import pyarrow

            # The library `zstandard` ends a truncated file without a word.
            return io.BufferedReader(pyarrow.CompressedInputStream(pyarrow.OSFile(str(file)), "zstd"))
    return file.open("rb")
