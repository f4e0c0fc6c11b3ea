"""The user's files that a source reads: finding them by glob, decompressing them, refusing other formats.

Globs work as in a shell: `*` and `?` stay within a name, `**` is any number of folders, and neither matches a hidden
name. Linked folders are followed, which `glob` of the standard library does without end where a link leads back; it
also skips broken links silently.
"""

import bz2
import errno
import gzip
import io
import lzma
import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import groupby, islice, takewhile
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

from mdpipe.data.artifacts.files import disk_full_errno
from mdpipe.file_formats import COMPRESSED, SUFFIXES_OF, TAR_SUFFIXES, ending, refusal
from mdpipe.messages import SHOWN_NAMES, listed_names, reason
from mdpipe.params.sources import ImageFolderSource, Source

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

READ_BYTES = 32 * 2**20
"""Approximate size of what one process reads at a time."""
BUFFER_BYTES = 2**20
MAX_EXPANSION = 200
"""Most bytes per compressed byte. Text seldom exceeds 10; a decompression bomb has 1,000."""

LITTER = ("__macosx", "desktop.ini", "thumbs.db")
"""Names, in lower case, that operating systems leave in folders. They are skipped like hidden names."""

MAGIC = {
    b"PAR1": ".parquet",
    b"ARROW1": ".arrow",
    b"\x1f\x8b": ".gz",
    b"BZh9": ".bz2",
    b"\xfd7zXZ\x00": ".xz",
    b"\x28\xb5\x2f\xfd": ".zst",
    b"PK\x03\x04": ".zip",
    b"%PDF-": ".pdf",
    b"\x93NUMPY": ".npy",
    b"7z\xbc\xaf\x27\x1c": ".7z",
    b"Rar!\x1a\x07": ".rar",
}
"""First bytes of some formats."""

BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, UnicodeError, OSError)
"""Errors that `zipfile` raises for a file that is not an archive, or is damaged."""
LOCAL_HEADER = b"PK\x03\x04"
"""First bytes of a zip archive's first member."""

SPLIT_NAMES = ("train", "training", "val", "valid", "validation", "dev", "eval", "test", "testing")
"""Names of folders, in lower case, that are splits and not classes."""

ROW_DIGITS = 10
"""Row numbers are padded with zeros, so that names sort as rows do."""

Glob = tuple[str, ...]
"""A pattern for each component of a path; `**` matches any number of folders."""


@dataclass(frozen=True)
class SourceFile:
    """A file of a source."""

    name: str
    """Relative to the source's folder, so that it is the same on every machine."""
    path: Path
    split: str | None
    """The split of its pattern, if any."""

    @property
    def size(self) -> int:
        """Return its size in bytes."""
        return self.path.stat().st_size

    @property
    def is_compressed(self) -> bool:
        """Return True if it can only be read from its beginning."""
        return compression(self.path) is not None


def check_files(
    source: Any, check_head: Callable[[Any, SourceFile], None] | None = None, most: int | None = None
) -> list[SourceFile]:
    """Return the files of a source with a `pattern`, once their names and how they begin are checked.

    Args:
        source: Its settings.
        check_head: Reads the beginning of a file, and raises ValueError if the source's settings do not fit it.
        most: Number of files of each split to check, the first ones; None for all of them.

    Raises:
        ValueError: No file matches, or one is of another format or does not fit the settings.
    """
    files = find_files(Path(source.path), source.pattern)
    refuse_other_formats(files, source.kind)
    if check_head is not None:
        for _, group in groupby(files, key=lambda file: file.split):
            for file in islice(group, most):
                check_head(source, file)
    return files


def find_files(path: Path, pattern: str | Mapping[str, str]) -> list[SourceFile]:
    """Return the path itself if it is a file, else the folder's files that match the glob, sorted by name.

    Hidden files and folders and leftovers of operating systems are skipped unless the pattern names them. With a
    mapping of splits to globs, the files come split by split.

    Raises:
        ValueError: The path does not exist, no file matches, one matches the globs of two splits, or a link is broken.
    """
    if path.is_file():
        return [SourceFile(path.name, path, None)]
    if not path.is_dir():
        raise ValueError(f"{path} does not exist; correct the source's `path` in params.yaml")
    if isinstance(pattern, str):
        return _matching(path, pattern, None)
    found = [file for split, glob in sorted(pattern.items()) for file in _matching(path, glob, split)]
    twice = sorted(name for name, count in Counter(file.name for file in found).items() if count > 1)
    if twice:
        raise ValueError(f"{twice[0]} in {path} fits the `pattern` of two splits; make them exclude each other")
    return found


def _matching(path: Path, pattern: str, split: str | None) -> list[SourceFile]:
    glob = PurePosixPath(pattern).parts
    found = [SourceFile(name, path / name, split) for name in sorted(_names(path, {glob}, "", frozenset()))]
    if not found:
        there = sorted(islice(_names(path, {("**",)}, "", frozenset()), SHOWN_NAMES))
        more = " and more" if len(there) == SHOWN_NAMES else ""
        has = f"has {', '.join(map(repr, there))}{more}" if there else "is empty"
        raise ValueError(
            f"no file in the folder {path}, which {has}, fits {pattern!r}; correct the source's `pattern` in"
            " params.yaml, or its `path`"
        )
    for file in found:
        if any("\ud800" <= character <= "\udfff" for character in file.name):
            raise ValueError(f"{file.name!r} in {path} is not a name in UTF-8; rename the file")
    return found


def _names(folder: Path, globs: Set[Glob], prefix: str, above: frozenset[tuple[int, int]]) -> Iterator[str]:
    """Yield the names, with `prefix`, of the files below a folder that match one of the globs.

    Only folders that a glob can match below are listed. A link to one of the folders `above` (device, inode) would
    never end and is skipped: its target is found without it.
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
                raise ValueError(f"{entry.path} is a broken link; restore its target, or remove it")
            if entry.is_dir():
                yield from _names(Path(entry.path), rests - {()}, f"{prefix}{entry.name}/", above | {here})
            elif () in rests and entry.is_file():
                yield prefix + entry.name


def _rests(name: str, glob: Glob) -> Iterator[Glob]:
    """Yield the rest of a glob after a name that matches its beginning; it is empty for a matching file."""
    if not glob:
        return
    first, rest = glob[0], glob[1:]
    is_hidden = name.startswith(".") or name.lower() in LITTER
    if first == "**":
        if not is_hidden:
            yield glob
            if not rest:
                yield ()
        yield from _rests(name, rest)
    elif fnmatchcase(name, first) and (not is_hidden or name == first or first.startswith(".")):
        yield rest


def group_files(files: Sequence[SourceFile]) -> Iterator[tuple[tuple[SourceFile, ...], int]]:
    """Yield neighboring files of one split that together have about `READ_BYTES`, and their bytes."""
    group: list[SourceFile] = []
    size = 0
    for file in files:
        if group and (size + file.size > READ_BYTES or file.split != group[0].split):
            yield tuple(group), size
            group, size = [], 0
        group.append(file)
        size += file.size
    if group:
        yield tuple(group), size


def find_classes(source: ImageFolderSource) -> tuple[dict[SourceFile, str | None], tuple[str, ...]]:
    """Return the files of a folder of images, each with its class if the source has `labels`, and all classes.

    Raises:
        ValueError: No file matches, a file without a sub-folder needs a label, or sub-folders are splits.
    """
    class_of = {file: _class_folder(source, file) if source.labels else None for file in check_files(source)}
    classes = tuple(sorted({name for name in class_of.values() if name is not None}))
    _refuse_splits(source, classes)
    return class_of, classes


def _class_folder(source: ImageFolderSource, file: SourceFile) -> str:
    """Return the first folder below those that the pattern names: cat for "train/*/*.png" and train/cat/7.png."""
    glob = source.pattern if isinstance(source.pattern, str) else source.pattern.get(file.split or "", "")
    folders = file.name.split("/")[len(_named_folders(glob)) : -1]
    if not folders:
        raise ValueError(
            f"{file.name} in {source.path} is in no sub-folder that could be its label; move it into one, narrow the"
            " source's `pattern` in params.yaml to '*/*', or set its `labels` to null"
        )
    return folders[0]


def _named_folders(glob: str) -> list[str]:
    return list(takewhile(lambda part: not set(part) & set("*?["), glob.split("/")[:-1]))


def _refuse_splits(source: ImageFolderSource, classes: Sequence[str]) -> None:
    """Raise ValueError if the classes would be splits; among others, a class may well be called train."""
    splits = [name for name in classes if name.lower() in SPLIT_NAMES]
    if not splits or (len(splits) == 1 and len(classes) > 1):
        return
    glob = source.pattern if isinstance(source.pattern, str) else next(iter(source.pattern.values()))
    below, file = _named_folders(glob), glob.rpartition("/")[2]
    written = ", ".join(f'{name}: "{"/".join([*below, name, "*", file])}"' for name in splits)
    raise ValueError(
        f"the folders {', '.join(splits)} in {source.path} would be the classes, but are splits by their names; to use"
        f" the folders below them as classes, set the source's `pattern` in params.yaml to {{{written}}}"
    )


@contextmanager
def open_decompressed(path: Path) -> Iterator[IO[bytes]]:
    """Open a file, decompressed if its name ends in .gz, .bz2, .xz or .zst, or in .tgz and similar.

    Raises:
        ValueError: It is truncated, not what its name says, or a decompression bomb.
    """
    suffix = compression(path)
    if suffix is None:
        with path.open("rb") as stream:
            yield stream
        return
    try:
        if not path.stat().st_size:
            raise EOFError("it is empty")  # which gzip takes for no text
        with _decompress(path, suffix) as packed, io.BufferedReader(_Bounded(packed, path), BUFFER_BYTES) as unpacked:
            yield unpacked
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        # The reader of this file may write another one, for which the disk has no room.
        if disk_full_errno(error) is not None or (
            isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)
        ):
            raise
        raise ValueError(f"{path} is truncated or no {suffix} file ({reason(error)}); replace it") from None


def compression(path: Path) -> str | None:
    """Return which of `COMPRESSED` a file has by its name; None for a plain one."""
    suffix = TAR_SUFFIXES.get(path.suffix.lower(), path.suffix.lower())
    return suffix if suffix in COMPRESSED else None


def _decompress(path: Path, suffix: str) -> io.BufferedIOBase:
    match suffix:
        case ".gz":
            return gzip.GzipFile(path, "rb")
        case ".bz2":
            return bz2.BZ2File(path)
        case ".xz":
            return lzma.LZMAFile(path)
    import pyarrow

    # The library `zstandard` ends a truncated file silently.
    return io.BufferedReader(pyarrow.CompressedInputStream(pyarrow.OSFile(str(path)), "zstd"))


class _Bounded(io.RawIOBase):
    """The decompressed bytes of a file, at most `MAX_EXPANSION` times the compressed ones."""

    def __init__(self, unpacked: io.BufferedIOBase, path: Path) -> None:
        self._unpacked, self._path, self._packed_size = unpacked, path, path.stat().st_size
        self._left = MAX_EXPANSION * max(self._packed_size, BUFFER_BYTES)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        count = self._unpacked.readinto(buffer)
        self._left -= count
        if self._left < 0:
            raise ValueError(
                f"{self._path} has {self._packed_size:,} bytes and unpacks to more than {MAX_EXPANSION} times as many:"
                " a decompression bomb; unpack it yourself if you trust it"
            )
        return count


def refuse_other_formats(files: Sequence[SourceFile], kind: str) -> None:
    """Check all files by their names, and the first one by how it begins.

    Raises:
        ValueError: A file is not of a format that the kind reads; the message says what to do.
    """
    for found in files:
        if (why := refusal(kind, ending(found.name))) is not None:
            raise ValueError(f"{found.path} is not for this source: {why}, or narrow the source's `pattern`")
    if kind not in SUFFIXES_OF:
        return
    first = files[0]
    with first.path.open("rb") as stream:
        head = stream.read(max(map(len, MAGIC)))
    suffix = next((suffix for magic, suffix in MAGIC.items() if head.startswith(magic)), None)
    if suffix is None or first.is_compressed or suffix in SUFFIXES_OF[kind]:
        return
    if suffix in COMPRESSED:
        raise ValueError(f"{first.path} is packed as {suffix} files are; rename it to {first.path.name}{suffix}")
    raise ValueError(f"{first.path} begins as a {suffix} file does: {refusal(kind, suffix)}")


def row_name(file: str, row: int) -> str:
    """Return the name of the document or image in a row of a table."""
    return f"{file}:{row:0{ROW_DIGITS}d}"


def check_columns(source: Source, where: str, names: Sequence[str], noun: str = "column") -> None:
    """Check that each column, field or array that a source reads is there exactly once: of two, readers take either.

    Raises:
        ValueError: It is not; the message begins with `where`.
    """
    for column, key in source.named_columns.items():
        count = names.count(column)
        if not count:
            raise ValueError(
                f"{where} has no {noun} {column!r}, only {listed_names(list(names))}; correct the source's `{key}` in"
                " params.yaml, or the data"
            )
        if count > 1:
            raise ValueError(f"{where} has {count} {noun}s {column!r}; keep or rename all but one")


def refuse_concatenated(files: zipfile.ZipFile, archive: Path) -> None:
    """Raise ValueError for an archive that follows another one, which would be skipped.

    A program may come before it: such an archive unpacks itself.
    """
    first = min(entry.header_offset for entry in files.infolist())
    with archive.open("rb") as stream:
        if first > 0 and stream.read(len(LOCAL_HEADER)) == LOCAL_HEADER:
            raise ValueError(f"{archive} is two concatenated archives, of which readers see the last; separate them")


def refuse_bomb(entry: zipfile.ZipInfo, where: str, hint: str) -> None:
    """Raise ValueError for a member of a zip archive that unpacks to too many bytes; its size is what it says."""
    if entry.file_size > MAX_EXPANSION * max(entry.compress_size, BUFFER_BYTES):
        raise ValueError(
            f"{where} from {entry.compress_size:,} to {entry.file_size:,} bytes: a decompression bomb; {hint}"
        )
