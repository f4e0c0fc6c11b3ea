"""Text files of the user's own: UTF-8, one document a file."""

from collections.abc import Iterator
from pathlib import Path

from mdpipe.data.raw import Document
from mdpipe.data.sources.files import decode_utf8, matching_files


def read(path: Path, pattern: str) -> Iterator[Document]:
    """One document for every file that fits, its text unchanged but for a leading byte-order mark.

    Raises:
        ValueError: no file fits, or one is not UTF-8 or has no text.
    """
    for name, file in matching_files(path, pattern):
        text = decode_utf8(file.read_bytes(), str(file)).removeprefix("\ufeff")
        if not text.strip():
            raise ValueError(f"{file} has no text; remove it, or narrow the source's `pattern` in params.yaml")
        yield Document(name, text)
