"""JSON lines of the user's own: one document a line, its text under one key."""

import json
from collections.abc import Iterator
from pathlib import Path

from mdpipe.data.raw import Document
from mdpipe.data.sources.files import decode_utf8, matching_files

PATTERN = "*.jsonl"
LINE_DIGITS = 12
"""Line numbers are padded with zeros, so that names sort as lines do."""


def read(path: Path, field: str) -> Iterator[Document]:
    """One document for every line that is not blank, of a file or of a folder's .jsonl files.

    Raises:
        ValueError: no file is found, or a line is not UTF-8, no JSON object, or has no text under the field.
    """
    # By name and colon, as in the documents' names, because "a-b" sorts before "a:" but after "a".
    for name, file in sorted(matching_files(path, PATTERN), key=lambda found: f"{found[0]}:"):
        first_byte = 0
        with file.open("rb") as lines:
            for number, raw in enumerate(lines, start=1):
                where = f"{file}:{number}"
                line = decode_utf8(raw, where, first_byte).removeprefix("\ufeff")
                first_byte += len(raw)
                if line.strip():
                    yield Document(f"{name}:{number:0{LINE_DIGITS}d}", _text(line, field, where))


def _text(line: str, field: str, where: str) -> str:
    try:
        entry = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{where} is no JSON ({error}); correct the line") from None
    if not isinstance(entry, dict):
        raise ValueError(f"{where} is no JSON object but {type(entry).__name__}; write {{{field!r}: text}} a line")  # noqa: TRY004
    if field not in entry:
        keys = ", ".join(map(repr, entry)) or "none"
        raise ValueError(f"{where} has no field {field!r}, only {keys}; correct the source's `field` or the line")
    text = entry[field]
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{where} has no text under {field!r} but {text!r}; correct or remove the line")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError(f"{where} has half a surrogate pair under {field!r}, which is no text; correct the line")
    return text
