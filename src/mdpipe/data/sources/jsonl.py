"""JSON lines of the user's own, packed or not: one document a line, its text under one key."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mdpipe.data.raw.material import Document
from mdpipe.data.sources.decoding import Policy, decoded
from mdpipe.data.sources.files import matching_files
from mdpipe.data.sources.lines import LineRange, line_name, line_number, line_ranges
from mdpipe.data.sources.rows import Empty, Rows


@dataclass(frozen=True)
class JsonLines:
    """Some lines of a file; blank ones do not count."""

    range: LineRange
    field: str
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
        """One document a line.

        Raises:
            ValueError: a line is no UTF-8, no JSON object, or has no text under the field.
        """
        found = self.range.found
        for position, raw in self.range.lines():
            try:
                line = decoded(raw, self.broken_utf8, counts, "it", position)
                line = line.removeprefix("\ufeff") if line and not position else line
                if line and line.strip():
                    name = line_name(found, position)
                    document = self.rows.document(name, _text(line, self.field), counts, f"the field {self.field!r}")
                    if document is not None:
                        yield document
            except ValueError as error:
                raise ValueError(f"{found.file}:{line_number(found.file, position)}: {error}") from None


def parts(
    path: Path,
    pattern: str | Mapping[str, str],
    field: str,
    broken_utf8: Policy,
    empty_rows: Empty,
    detokenizer: str | None,
) -> list[JsonLines]:
    """Ranges of lines of a file, or of a folder's files that fit.

    Raises:
        ValueError: no file is found.
    """
    rows = Rows(empty_rows, detokenizer)
    # By name and colon, as in the documents' names, because "a-b" sorts before "a:" but after "a".
    files = sorted(matching_files(path, pattern), key=lambda found: (found.split or "", f"{found.name}:"))
    return [JsonLines(lines, field, broken_utf8, rows) for lines in line_ranges(files)]


def _text(line: str, field: str) -> str:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"this is no JSON ({error}); correct the line") from None
    if not isinstance(entry, dict):
        raise ValueError(f"this is no JSON object but {type(entry).__name__}; write {{{field!r}: text}} a line")  # noqa: TRY004
    if field not in entry:
        keys = ", ".join(map(repr, entry)) or "none"
        raise ValueError(f"there is no field {field!r}, only {keys}; correct the source's `field` or the line")
    text = "" if entry[field] is None else entry[field]
    if not isinstance(text, str):
        raise ValueError(f"there is no text under {field!r} but {text!r:.60}; correct or remove the line")  # noqa: TRY004
    return text
