"""The user's files that a source reads: one file, or those of a folder that fit a pattern.

Patterns work as in a shell: `*` and `?` stay within a name, `**` is any number of folders, and neither matches a hidden
name. Linked folders are followed.
"""

import bz2
import errno
import gzip
import io
import lzma
import os
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from mdpipe.data.artifacts.room import no_room
from mdpipe.data.sources.archives import BLOCK, MOST_EXPANSION
from mdpipe.file_formats import COMPRESSED, TAR_SUFFIXES
from mdpipe.messages import reason

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

PART_BYTES = 32 * 2**20
"""What one process reads at a time, about."""

LITTER = ("__macosx", "desktop.ini", "thumbs.db")
"""Names, in lower case, that operating systems leave in folders. Like hidden names, they are no data."""

Glob = tuple[str, ...]
"""A pattern for each component of a path; `**` stands for any number of folders."""


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
        return compression(self.file) is not None


def matching_files(path: Path, pattern: str | Mapping[str, str]) -> list[Found]:
    """Sorted by name: the path itself if it is a file, else the folder's files that fit the glob pattern.

    Hidden files and folders do not count, nor what operating systems leave behind, unless the pattern names them.

    A mapping of the source's own splits to patterns gives the files of one split after those of another.

    Raises:
        ValueError: the path does not exist, no file fits, one fits the patterns of two splits, or a link leads nowhere.
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
    glob = PurePosixPath(pattern)
    if not glob.parts or glob.is_absolute() or ".." in glob.parts:
        raise ValueError(
            f"the source's pattern = {pattern!r} is no relative glob such as '**/*.txt' within the folder {path};"
            " correct it in params.yaml"
        )
    found = [Found(name, path / name, split) for name in sorted(_names(path, {glob.parts}, "", frozenset()))]
    if not found:
        raise ValueError(f"no file in the folder {path} fits {pattern!r}; correct the source's `path` or `pattern`")
    for file in found:
        if any("\ud800" <= character <= "\udfff" for character in file.name):
            raise ValueError(f"{file.name!r} in {path} is no name in UTF-8; rename the file")
    return found


def _names(folder: Path, globs: Set[Glob], prefix: str, above: frozenset[tuple[int, int]]) -> Iterator[str]:
    """Names, which begin with `prefix`, of the files below a folder that fit one of the globs.

    Only folders are listed that a glob leads into. A link to one of the folders `above` (device, inode), which would
    never end, is passed over: what it leads to is found without it.

    Raises:
        ValueError: a link that fits leads nowhere, as where a disk is not mounted.
    """
    status = folder.stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            rests = {rest for glob in globs for rest in _rests(entry.name, glob)}
            if not rests:
                continue
            if entry.is_symlink() and not Path(entry.path).exists():
                raise ValueError(f"{entry.path} is a link that leads nowhere; restore what it leads to, or remove it")
            if entry.is_dir():
                yield from _names(Path(entry.path), rests - {()}, f"{prefix}{entry.name}/", above | {here})
            elif () in rests and entry.is_file():
                yield prefix + entry.name


def _rests(name: str, glob: Glob) -> Iterator[Glob]:
    """What is left of a glob below a name that its beginning fits; nothing is left for a file that fits."""
    if not glob:
        return
    first, *others = glob
    rest = tuple(others)
    if first == "**":
        if not _is_hidden(name):
            yield glob
            if not rest:
                yield ()
        yield from _rests(name, rest)
    elif fnmatchcase(name, first) and (not _is_hidden(name) or name == first or first.startswith(".")):
        yield rest


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in LITTER


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
    """The bytes of a file, unpacked where its name ends in .gz, .bz2, .xz or .zst, or .tgz and its kin.

    Raises:
        ValueError: it is truncated, not what its name says, or a decompression bomb.
    """
    suffix = compression(file)
    if suffix is None:
        with file.open("rb") as stream:
            yield stream
        return
    try:
        if not file.stat().st_size:
            raise EOFError("it is empty")  # which gzip takes for no text
        with _decompressed(file, suffix) as packed, io.BufferedReader(_Bounded(packed, file), BLOCK) as unpacked:
            yield unpacked
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        # What reads the file may write another, for which the disk has no room.
        if no_room(error) is not None or (isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)):
            raise
        raise ValueError(f"{file} is truncated or no {suffix} file ({reason(error)}); replace it") from None


def compression(file: Path) -> str | None:
    """Return which of `COMPRESSED` a file is packed as, by its name; None for a plain one."""
    suffix = TAR_SUFFIXES.get(file.suffix.lower(), file.suffix.lower())
    return suffix if suffix in COMPRESSED else None


def _decompressed(file: Path, suffix: str) -> io.BufferedIOBase:
    match suffix:
        case ".gz":
            return gzip.GzipFile(file, "rb")
        case ".bz2":
            return bz2.BZ2File(file)
        case ".xz":
            return lzma.LZMAFile(file)
    import pyarrow

    # The library `zstandard` ends a truncated file without a word.
    return io.BufferedReader(pyarrow.CompressedInputStream(pyarrow.OSFile(str(file)), "zstd"))


class _Bounded(io.RawIOBase):
    """The unpacked bytes of a file, which may not be many times more than the packed ones."""

    def __init__(self, unpacked: io.BufferedIOBase, file: Path) -> None:
        self._unpacked = unpacked
        self._file = file
        self._packed_size = file.stat().st_size
        self._left = MOST_EXPANSION * max(self._packed_size, BLOCK)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        count = self._unpacked.readinto(buffer)
        self._left -= count
        if self._left < 0:
            raise ValueError(
                f"{self._file} has {self._packed_size:,} bytes and unpacks to more than {MOST_EXPANSION} times as many:"
                " a decompression bomb; unpack it by hand if you trust it"
            )
        return count
