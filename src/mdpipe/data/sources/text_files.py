"""Text files of the user's own, packed or not: a file or a line is a document."""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mdpipe.data.raw.material import Document
from mdpipe.data.sources.decoding import Policy, decoded
from mdpipe.data.sources.extents import PartOf
from mdpipe.data.sources.files import PART_BYTES, FileGroup, Found, in_groups, matching_files, opened
from mdpipe.data.sources.formats import refuse_other_formats
from mdpipe.data.sources.line_documents import LineDocuments
from mdpipe.data.sources.lines import line_ranges
from mdpipe.data.sources.rows import Empty, Rows
from mdpipe.file_formats import KIND_OF, ending

Unit = Literal["file", "line"]
LONGEST_CHARACTER = 4
"""Bytes of a character in UTF-8, all but the first of which are 10...... in binary."""


@dataclass(frozen=True)
class Files(PartOf[FileGroup]):
    """Some files, a document each; a long one comes in parts that end at white space where there is any."""

    broken_utf8: Policy
    rows: Rows

    def read(self, counts: Counter[str]) -> Iterator[Document]:
        """A document a file, its text unchanged but for a leading byte-order mark.

        Raises:
            ValueError: a file is not UTF-8, has no text, or is too long for a detokenizer.
        """
        counts["files"] += len(self.extent.files)
        for found in self.extent.files:
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
        if not broken and not any(text.strip() for text, _ in self._texts(found, Counter())):
            empty = self.rows.document(found.name, "", counts, str(found.file))
            if empty is None:
                return
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
class Lines(LineDocuments):
    """Some lines of a file, a document each."""

    def document(self, name: str, line: str, counts: Counter[str]) -> Document | None:
        """The document of a line.

        Raises:
            ValueError: it has no text, if that is to be refused.
        """
        return self.rows.document(name, line, counts, "the line")


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
    files = matching_files(path, pattern)
    refuse_other_formats(files, "text_files")
    for suffix in sorted({ending(found.name) for found in files} & KIND_OF.keys()):
        sys.stderr.write(f"{path}: {suffix} files are read as plain text; `kind: {KIND_OF[suffix]}` reads their rows\n")
    return text_parts(files, documents, broken_utf8, Rows(empty_rows, detokenizer))


def text_parts(found: list[Found], documents: Unit, broken_utf8: Policy, rows: Rows) -> list[Files] | list[Lines]:
    """These files in parts."""
    if documents == "line":
        return [Lines(lines, broken_utf8, rows) for lines in line_ranges(found)]
    return [Files(group, broken_utf8, rows) for group in in_groups(found)]


def _last_gap(block: bytes) -> int:
    """Where a block is cut: after its last white space, or failing that before its last character begins."""
    gap = max(block.rfind(b" "), block.rfind(b"\n")) + 1
    if gap:
        return gap
    for first in range(len(block) - 1, max(-1, len(block) - 1 - LONGEST_CHARACTER), -1):
        if block[first] & 0xC0 != 0x80:
            return first
    return len(block)
