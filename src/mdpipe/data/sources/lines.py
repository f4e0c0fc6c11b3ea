"""Files cut at line ends into parts of bounded size, and the lines of such a part."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mdpipe.data.sources.files import PART_BYTES, Found, opened

LONGEST_LINE = 64 * 2**20
"""Bytes. A longer line is more likely no line than a document, and would not fit the memory that is promised."""
DIGITS = 14
"""Byte positions are padded with zeros, so that names sort as lines do."""


@dataclass(frozen=True)
class LineRange:
    """The lines of a file that begin in [start, end); end None for all the rest."""

    found: Found
    start: int
    end: int | None

    @property
    def split(self) -> str | None:
        """That of its file."""
        return self.found.split

    @property
    def size(self) -> int:
        """Bytes, of the packed file where it is one."""
        return (self.found.size if self.end is None else self.end) - self.start

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """(byte at which it begins, line without its end).

        Raises:
            ValueError: a line is too long, or a packed file is broken.
        """
        with opened(self.found.file) as stream:
            position = self.start
            if self.start:
                # A line that begins before belongs to the range before; one that begins right here is ours.
                stream.seek(self.start - 1)
                position += len(stream.readline(LONGEST_LINE)) - 1
            while self.end is None or position < self.end:
                line = stream.readline(LONGEST_LINE + 1)
                if not line:
                    return
                if len(line) > LONGEST_LINE:
                    raise ValueError(
                        f"{self.found.file} has a line of more than {LONGEST_LINE:,} bytes that begins at byte"
                        f" {position:,}; is it text in lines? Cut the line, or take the file as one document"
                    )
                yield position, line.removesuffix(b"\n").removesuffix(b"\r")
                position += len(line)


def line_ranges(files: list[Found]) -> list[LineRange]:
    """Every file in ranges of PART_BYTES; a packed file is one range, since it has no middle to begin at."""
    ranges = []
    for found in files:
        starts = [0] if found.compressed else [*range(0, max(found.size, 1), PART_BYTES)]
        ends = [*starts[1:], None]
        ranges += [LineRange(found, start, end) for start, end in zip(starts, ends, strict=True)]
    return ranges


def line_name(found: Found, position: int) -> str:
    """The name of the document on the line that begins there."""
    return f"{found.name}:{position:0{DIGITS}d}"


def line_number(file: Path, position: int) -> int:
    """Which line begins at this byte, counted from 1: for messages."""
    with opened(file) as stream:
        number = 1
        while position > 0 and (block := stream.read(min(position, 2**20))):
            number += block.count(b"\n")
            position -= len(block)
    return number
