"""Pictures in .tar archives, packed or not, read where they lie: a million small files need not be unpacked."""

import hashlib
import tarfile
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Self

import numpy as np
from PIL import Image

from mdpipe.data.raw.material import Pictures
from mdpipe.data.sources.extents import PartOf
from mdpipe.data.sources.files import Found, matching_files, opened
from mdpipe.data.sources.formats import refuse_other_formats
from mdpipe.data.sources.pictures import BATCH, MOST_PIXELS, Alike, Mode, Wanted
from mdpipe.messages import printable, reason

MOST_BYTES = 4 * MOST_PIXELS
"""Of one picture file: a header of a few bytes can promise more than there is memory."""


class _BrokenHeaderError(tarfile.ReadError):
    """What should be the description of a file is none."""


class _Member(tarfile.TarInfo):
    """The description of a file, which where it is broken is not taken for the padding after an archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if any(buf):
                raise _BrokenHeaderError(str(error)) from None
            raise


@dataclass(frozen=True)
class PictureTar(PartOf[Found]):
    """The pictures of one archive."""

    wanted: Wanted

    def read(self, counts: Counter[str]) -> Iterator[Pictures]:
        """The pictures in the archive's order, in batches.

        Counted are hidden files, which some systems add to archives, and files beside the pictures, as WebDataset has
        them, all of which are left out, and pictures that have the name of an earlier one, which are read.

        Raises:
            ValueError: the archive is broken, or a picture is, or differs from the first in size or mode.
        """
        alike, files = Alike(self.wanted, counts), _pictures(self.extent.file, counts)
        counts["files"] += 1
        while batch := list(islice(files, BATCH)):
            yield Pictures(alike.stacked(batch), None, 255, None)


def parts(path: Path, pattern: str | Mapping[str, str], mode: Mode | None, resize: int | None) -> list[PictureTar]:
    """One an archive.

    Args:
        path: the archive, or the folder that they are in.
        pattern: a glob of the archives that count, or one for each of the source's own splits.
        mode: what pictures are converted to, or None to refuse those that are neither grey nor RGB.
        resize: edge of the squares that they are cut and shrunk to, or None for pictures of one size.

    Raises:
        ValueError: no file fits, or one is no .tar archive by its name or its first bytes.
    """
    files = matching_files(path, pattern)
    refuse_other_formats(files, "image_tar")
    return [PictureTar(found, Wanted(mode, resize)) for found in files]


def _pictures(path: Path, counts: Counter[str]) -> Iterator[tuple[str, bytes]]:
    """The picture files of an archive: names for messages, and contents."""
    names = array("Q")
    for name, content in _files(path, counts):
        names.append(int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()))
        yield f"{path}: {printable(name)}", content
    # A set of a million names would take more memory than the pictures.
    if repeated := len(names) - len(np.unique(np.frombuffer(names, np.uint64))):
        counts["pictures with the name of an earlier one"] += repeated


def _files(path: Path, counts: Counter[str]) -> Iterator[tuple[str, bytes]]:
    position = 0
    with opened(path) as stream:
        try:
            # Archives that were joined are read one after another: each ends in zeros, which are passed over.
            with tarfile.open(fileobj=stream, mode="r|", ignore_zeros=True, tarinfo=_Member) as archive:
                while (member := archive.next()) is not None:
                    # The archive would keep a description of each.
                    archive.members.clear()  # type: ignore[attr-defined]
                    if not member.isdir() and _is_picture(member.name, counts):
                        yield member.name, _content(archive, member)
                    position = archive.offset
                # The library takes the end of the file for that of the archive, which really is a block of zeros.
                if archive.offset == position:
                    raise _BrokenHeaderError("no zeros follow")
        except _BrokenHeaderError:
            raise ValueError(_broken(path, f"it breaks off at byte {position:,}")) from None
        except tarfile.TarError as error:
            raise ValueError(_broken(path, reason(error))) from None


def _broken(path: Path, why: str) -> str:
    return f"{path} is truncated, damaged or no .tar archive ({why}); replace it"


def _is_picture(name: str, counts: Counter[str]) -> bool:
    """Return whether a member is to be read; a file without an ending is, and has to be a picture."""
    parts = PurePosixPath(name).parts
    if any(part == "__MACOSX" or (part.startswith(".") and part != "..") for part in parts):
        counts["hidden files left out"] += 1
        return False
    suffix = PurePosixPath(name).suffix.lower()
    if suffix and suffix not in _picture_suffixes():
        counts["files that are no pictures by their names left out"] += 1
        return False
    return True


@cache
def _picture_suffixes() -> frozenset[str]:
    return frozenset(Image.registered_extensions())


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if not member.isreg():
        raise tarfile.ReadError(f"{member.name} is no file; pack it without links")
    if member.size > MOST_BYTES:
        raise tarfile.ReadError(f"{member.name} has {member.size:,} bytes, too many for a picture")
    with archive.extractfile(member) as content:  # type: ignore[union-attr]
        return content.read()
