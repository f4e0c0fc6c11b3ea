"""Text files of the user's own, packed or not: a file or a line is a document."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mdpipe.data.raw.material import Document
from mdpipe.data.sources.decoding import Policy, decoded
from mdpipe.data.sources.files import PART_BYTES, Found, in_groups, matching_files, opened
from mdpipe.data.sources.lines import LineRange, line_name, line_number, line_ranges
from mdpipe.data.sources.rows import Empty, Rows

Unit = Literal["file", "line"]
LONGEST_CHARACTER = 4
"""Bytes of a character in UTF-8, all but the first of which are 10...... in binary."""


@dataclass(frozen=True)
class Files:
    """Some files, a document each; a long one comes in parts that end at white space where there is any."""

    files: tuple[Found, ...]
    broken_utf8: Policy
    rows: Rows

    @property
    def split(self) -> str | None:
        """That of its files."""
        return self.files[0].split

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(found.size for found in self.files)

    def read(self, counts: Counter[str]) -> Iterator[Document]:
        """A document a file, its text unchanged but for a leading byte-order mark.

        Raises:
            ValueError: a file is not UTF-8, has no text, or is too long for a detokenizer.
        """
        for found in self.files:
            with opened(found.file) as stream:
                raw = stream.read(PART_BYTES)
                long = bool(stream.read(1))
            if long:
                yield from self._in_parts(found, counts)
                continue
            text = decoded(raw, self.broken_utf8, counts, str(found.file))
            if text is not None:
                document = self.rows.document(found.name, text.removeprefix("\ufeff"), counts, str(found.file))
                if document is not None:
                    yield document

    def _in_parts(self, found: Found, counts: Counter[str]) -> Iterator[Document]:
        if self.rows.detokenizer is not None:
            raise ValueError(
                f"{found.file} has more than {PART_BYTES:,} bytes, but `detokenizer` needs a document as a whole; set"
                " the source's `documents` in params.yaml to line"
            )
        broken = Counter[str]()
        if self.broken_utf8 == "skip":
            # Before the first part is given, which could not be taken back.
            for _ in self._texts(found, broken):
                pass
        if not broken:
            for number, (text, unfinished) in enumerate(self._texts(found, broken)):
                yield Document(found.name, text, number, unfinished)
        counts.update(dict.fromkeys(broken, 1))  # of documents, not of their parts

    def _texts(self, found: Found, counts: Counter[str]) -> Iterator[tuple[str, bool]]:
        """(text, whether more follows) of every part of a file."""
        with opened(found.file) as stream:
            first_byte, block = 0, stream.read(PART_BYTES)
            while block:
                following = stream.read(PART_BYTES)
                end = _last_gap(block) if following else len(block)
                text = decoded(block[:end], self.broken_utf8, counts, str(found.file), first_byte)
                text = text if first_byte or not text else text.removeprefix("\ufeff")
                if text:
                    yield text, bool(following)
                first_byte += end
                block = block[end:] + following


@dataclass(frozen=True)
class Lines:
    """Some lines of a file, a document each."""

    range: LineRange
    broken_utf8: Policy
    rows: Rows

    @property
    def split(self) -> str | None:
        """That of its file."""
        return self.range.found.split

    @property
    def size(self) -> int:
        """Bytes."""
        return self.range.size

    def read(self, counts: Counter[str]) -> Iterator[Document]:
        """A document a line.

        Raises:
            ValueError: a line is not UTF-8 or, if that is to be refused, has no text.
        """
        found = self.range.found
        for position, raw in self.range.lines():
            try:
                text = decoded(raw, self.broken_utf8, counts, "it", position)
                if text is not None:
                    text = text if position else text.removeprefix("\ufeff")
                    document = self.rows.document(line_name(found, position), text, counts, "the line")
                    if document is not None:
                        yield document
            except ValueError as error:
                raise ValueError(f"{found.file}:{line_number(found.file, position)}: {error}") from None


def parts(
    path: Path,
    pattern: str | Mapping[str, str],
    documents: Unit,
    broken_utf8: Policy,
    empty_rows: Empty,
    detokenizer: str | None,
) -> list[Files] | list[Lines]:
    """A file, or a folder's files that fit, in parts.

    Raises:
        ValueError: no file fits.
    """
    return text_parts(matching_files(path, pattern), documents, broken_utf8, Rows(empty_rows, detokenizer))


def text_parts(found: list[Found], documents: Unit, broken_utf8: Policy, rows: Rows) -> list[Files] | list[Lines]:
    """These files in parts."""
    if documents == "line":
        return [Lines(lines, broken_utf8, rows) for lines in line_ranges(found)]
    return [Files(tuple(group), broken_utf8, rows) for group in in_groups(found)]


def _last_gap(block: bytes) -> int:
    """Where a block is cut: after its last white space, or failing that before its last character begins."""
    gap = max(block.rfind(b" "), block.rfind(b"\n")) + 1
    if gap:
        return gap
    for first in range(len(block) - 1, max(-1, len(block) - 1 - LONGEST_CHARACTER), -1):
        if block[first] & 0xC0 != 0x80:
            return first
    return len(block)
