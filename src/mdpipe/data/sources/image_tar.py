"""Pictures in .tar archives, read where they lie: a million small files need not be unpacked."""

import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from mdpipe.data.raw.material import Pictures
from mdpipe.data.sources.extents import PartOf
from mdpipe.data.sources.files import Found, matching_files
from mdpipe.data.sources.pictures import BATCH, MOST_PIXELS, Alike, Mode, Wanted

MOST_BYTES = 4 * MOST_PIXELS
"""Of one picture file: a header of a few bytes can promise more than there is memory."""


@dataclass(frozen=True)
class PictureTar(PartOf[Found]):
    """The pictures of one archive."""

    wanted: Wanted

    def read(self, counts: Counter[str]) -> Iterator[Pictures]:
        """The pictures in the archive's order, in batches.

        Raises:
            ValueError: the archive is broken, or a picture is, or differs from the first in size or mode.
        """
        alike, files = Alike(self.wanted, counts), _files(self.extent.file)
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
        ValueError: no file fits.
    """
    return [PictureTar(found, Wanted(mode, resize)) for found in matching_files(path, pattern)]


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    """The files of an archive: names for messages, and contents."""
    try:
        with path.open("rb") as stream, tarfile.open(fileobj=stream, mode="r:", errors="replace") as archive:
            while (member := archive.next()) is not None:
                # The archive would keep a description of each.
                archive.members.clear()  # type: ignore[attr-defined]
                if not member.isdir():
                    yield f"{path}: {member.name}", _content(archive, member)
            # The library takes a broken description of a file for the end, which really is a block of zeros.
            stream.seek(archive.offset)
            if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError(f"it breaks off at byte {archive.offset:,}")
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise ValueError(f"{path} is truncated, damaged or no .tar archive ({error}); replace it") from None


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if not member.isreg():
        raise tarfile.ReadError(f"{member.name} is no file; pack it without links")
    if member.size > MOST_BYTES:
        raise tarfile.ReadError(f"{member.name} has {member.size:,} bytes, too many for a picture")
    with archive.extractfile(member) as content:  # type: ignore[union-attr]
        return content.read()
