"""CSV and TSV files, plain or compressed: one document per row, with any delimiter, encoding and line ends.

`datasets` reads them with pandas, which makes NA and null of texts that say so, and numbers of digits.
"""

import codecs
import csv
import io
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO

from mdpipe.data.raw import Document
from mdpipe.data.sources.files import SourceFile, check_columns, check_files, open_decompressed, row_name
from mdpipe.data.sources.text import join_texts, make_document
from mdpipe.data.sources.writer import SourceShard
from mdpipe.messages import reason
from mdpipe.params.sources import CsvSource

MAX_CHARACTERS = 64 * 2**20
"""Limit of a line or a value. A longer one probably lacks a quote, and several would not fit into memory."""
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Byte order marks of Unicode files; a longer mark comes before those that it begins with."""
DELIMITERS = ",;\t|"
"""The usual delimiters, for a hint if a file has another one than its source states."""


def open_csv(source: CsvSource) -> list[SourceShard]:
    """Return one shard per file: it has no middle to begin at, since a value may contain line breaks."""
    files = check_files(source, check_head)
    return [SourceShard(file.split, file.size, partial(_read_file, source, file)) for file in files]


def _read_file(source: CsvSource, file: SourceFile, counts: Counter[str]) -> Iterator[Document]:
    """Yield at most one document per row."""
    with open_decompressed(file.path) as stream:
        rows = _rows(source, file.path, stream)
        _, names = next(rows)
        positions = [names.index(column) for column in source.columns]
        counts["files"] += 1
        for number, (line, values) in enumerate(rows):
            counts["rows"] += 1
            text = join_texts(values[position] for position in positions)
            yield from make_document(source, row_name(file.name, number), text, counts, f"{file.path}:{line}")


def _rows(source: CsvSource, path: Path, stream: IO[bytes]) -> Iterator[tuple[int, list[str]]]:
    """Yield the line on which each row ends and its values, the header first; blank lines are skipped."""
    is_utf_8 = codecs.lookup(source.encoding).name == "utf-8"
    text = io.TextIOWrapper(stream, "utf-8-sig" if is_utf_8 else source.encoding, newline="")
    csv.field_size_limit(MAX_CHARACTERS)
    reader = csv.reader(_lines(text), delimiter=source.delimiter, strict=True)
    width = None if source.header is True else len(source.header)
    if source.header is not True:
        yield 0, list(source.header)
    try:
        for values in reader:
            if not values:
                continue
            if width is not None and len(values) != width:
                raise ValueError(
                    f"{path}:{reader.line_num}: this row has {len(values)} values and the header {width}; correct"
                    f" the row, or the source's `delimiter` ({source.delimiter!r}) or `header` in params.yaml"
                )
            width = len(values)
            yield reader.line_num, values
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not {source.encoding}: byte 0x{error.object[error.start]:02x} after line {reader.line_num}"
            f" ({error.reason}); set the source's `encoding` in params.yaml, to cp1252 for many files of Excel"
        ) from None
    except (csv.Error, UnicodeError) as error:
        raise ValueError(
            f"{path}:{reader.line_num}: {reason(error)}; correct the quotes of this row or one before, or the"
            f" source's `delimiter` ({source.delimiter!r}) or `encoding` in params.yaml"
        ) from None


def _lines(text: io.TextIOWrapper) -> Iterator[str]:
    while line := text.readline(MAX_CHARACTERS + 1):
        if len(line) > MAX_CHARACTERS:
            raise csv.Error(f"the next line has more than {MAX_CHARACTERS:,} characters")
        yield line


def check_head(source: CsvSource, file: SourceFile) -> None:
    """Check byte-order mark, header and columns."""
    path = file.path
    with open_decompressed(path) as stream:
        head = stream.read(4)
    marked = next((encoding for mark, encoding in BYTE_ORDER_MARKS.items() if head.startswith(mark)), None)
    if marked is not None and not codecs.lookup(source.encoding).name.startswith(marked):
        raise ValueError(
            f"{path} begins as {marked} does and not as {source.encoding}; set the source's `encoding` in params.yaml"
            f" to {marked}"
        )
    with open_decompressed(path) as stream:
        rows = _rows(source, path, stream)
        _, names = next(rows, (0, None))
        first = next(rows, (0, []))[1] if source.header is not True else []
    if names is None:
        raise ValueError(f"{path} is empty; remove it, or narrow the source's `pattern`")
    if names == first:
        raise ValueError(f"the first row of {path} names the columns; set the source's `header` in params.yaml to true")
    other = next((sign for sign in DELIMITERS if sign in names[0] and sign != source.delimiter), None)
    if len(names) == 1 and other is not None and set(source.columns) - set(names):
        raise ValueError(
            f"{path} has the only column {names[0]!r}; set the source's `delimiter` in params.yaml to {other!r}"
        )
    check_columns(source, f"the header (the first row, or the source's `header`) of {path}", names)
