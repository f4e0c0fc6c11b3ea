"""Image files in folders, and in .tar archives, which are read in place: a million files need not be unpacked."""

import hashlib
import tarfile
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache, partial
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Self

import numpy as np
from PIL import Image

from mdpipe.data.raw import ImageBatch
from mdpipe.data.sources.files import SourceFile, find_files, group_files, open_decompressed, refuse_other_formats
from mdpipe.data.sources.images import MAX_PIXELS, decode_batches
from mdpipe.data.sources.writer import SourceShard
from mdpipe.messages import printable, reason
from mdpipe.params.sources import ImageFolderSource, ImageTarSource

SPLIT_NAMES = ("train", "training", "val", "valid", "validation", "dev", "eval", "test", "testing")
"""Names of folders, in lower case, that are splits and not classes."""
MAX_BYTES = 4 * MAX_PIXELS
"""Of one image file: a header of a few bytes can promise more than there is memory."""


def open_image_files(source: ImageFolderSource | ImageTarSource) -> list[SourceShard]:
    """Return groups of files in the order of their names, or archives.

    Raises:
        ValueError: no file matches, a file without a sub-folder needs a label, sub-folders are splits and not classes,
            or a file is not a .tar archive by its name or its first bytes.
    """
    files = find_files(Path(source.path), source.pattern)
    if isinstance(source, ImageTarSource):
        refuse_other_formats(files, source.kind)
        return [SourceShard(file.split, file.size, partial(_read_archive, source, file.path)) for file in files]
    class_of = {file.name: _class_folder(source, file) for file in files} if source.labels else {}
    classes = sorted(set(class_of.values()))
    _refuse_splits(source, classes)
    number_of = {name: number for number, name in enumerate(classes)}
    shards = []
    for group, size in group_files(files):
        labels = [number_of[class_of[file.name]] if source.labels else None for file in group]
        images = [(file.path, label) for file, label in zip(group, labels, strict=True)]
        shards.append(SourceShard(group[0].split, size, partial(_read_files, source, images, tuple(classes))))
    return shards


def _read_files(
    source: ImageFolderSource, files: Sequence[tuple[Path, int | None]], classes: tuple[str, ...], counts: Counter[str]
) -> Iterator[ImageBatch]:
    counts["files"] += len(files)
    return decode_batches(((str(path), path, label) for path, label in files), source, counts, classes)


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
    """Return the folders that a glob names."""
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


def _read_archive(source: ImageTarSource, path: Path, counts: Counter[str]) -> Iterator[ImageBatch]:
    """Yield the images of an archive in its order, in batches.

    Left out and counted are hidden files, which some systems add to archives, and files that are not images, as in
    WebDataset. Images with the name of an earlier one are read and counted.

    Raises:
        ValueError: the archive or an image is broken, or an image differs from the first in size or mode.
    """
    counts["files"] += 1
    return decode_batches(_archive_images(path, counts), source, counts)


def _archive_images(path: Path, counts: Counter[str]) -> Iterator[tuple[str, bytes, None]]:
    names = array("Q")
    for name, content in _archive_files(path, counts):
        names.append(int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()))
        yield f"{path}: {printable(name)}", content, None
    # A set of a million names would take more memory than the images.
    if repeated := len(names) - len(np.unique(np.frombuffer(names, np.uint64))):
        counts["pictures with the name of an earlier one"] += repeated


class _BrokenHeaderError(tarfile.ReadError):
    """The header of a file is damaged."""


class _Member(tarfile.TarInfo):
    """The header of a file, which is not taken for the padding after an archive if it is damaged."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if any(buf):
                raise _BrokenHeaderError(str(error)) from None
            raise


def _archive_files(path: Path, counts: Counter[str]) -> Iterator[tuple[str, bytes]]:
    position = 0
    with open_decompressed(path) as stream:
        try:
            # Concatenated archives are read one after another: each ends in zeros, which are skipped.
            with tarfile.open(fileobj=stream, mode="r|", ignore_zeros=True, tarinfo=_Member) as archive:
                while (member := archive.next()) is not None:
                    # The archive would keep the header of each.
                    archive.members.clear()  # type: ignore[attr-defined]
                    if not member.isdir() and _is_image(member.name, counts):
                        yield member.name, _content(archive, member)
                    position = archive.offset
                # The library takes the end of the file for the end of the archive, which really is a block of zeros.
                if archive.offset == position:
                    raise _BrokenHeaderError("no zeros follow")
        except _BrokenHeaderError:
            raise ValueError(_broken(path, f"it breaks off at byte {position:,}")) from None
        except tarfile.TarError as error:
            raise ValueError(_broken(path, reason(error))) from None


def _broken(path: Path, why: str) -> str:
    return f"{path} is truncated, damaged or no .tar archive ({why}); replace it"


def _is_image(name: str, counts: Counter[str]) -> bool:
    """Return True if a member is to be read; a file without an ending is, and must be an image."""
    parts, suffix = PurePosixPath(name).parts, PurePosixPath(name).suffix.lower()
    if any(part == "__MACOSX" or (part.startswith(".") and part != "..") for part in parts):
        counts["hidden files left out"] += 1
        return False
    if suffix and suffix not in _image_suffixes():
        counts["files that are no pictures by their names left out"] += 1
        return False
    return True


@cache
def _image_suffixes() -> frozenset[str]:
    return frozenset(Image.registered_extensions())


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if not member.isreg():
        raise tarfile.ReadError(f"{member.name} is no file; pack it without links")
    if member.size > MAX_BYTES:
        raise tarfile.ReadError(f"{member.name} has {member.size:,} bytes, too many for an image")
    with archive.extractfile(member) as content:  # type: ignore[union-attr]
        return content.read()
