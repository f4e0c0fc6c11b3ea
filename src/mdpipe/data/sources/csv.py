"""Text in CSV files, packed or not: one document a row, whatever the delimiter, encoding and line ends."""

import codecs
import csv
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from mdpipe.data.raw.material import Document
from mdpipe.data.sources.extents import PartOf
from mdpipe.data.sources.files import Found, matching_files, opened
from mdpipe.data.sources.formats import refuse_other_formats
from mdpipe.data.sources.rows import Empty, Rows
from mdpipe.data.sources.table_files import DIGITS, check_columns
from mdpipe.messages import reason

MAX_CHARACTERS = 64 * 2**20
"""Of a line or a value. A longer one more likely lacks a quote, and would not fit the memory that is promised."""
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""How files of Unicode may begin, the longer mark first where one is the beginning of another."""
DELIMITERS = ",;\t|"
"""Those in use, for the hint where a file has another one than stated."""


@dataclass(frozen=True)
class Dialect:
    """How the files of a source are written."""

    delimiter: str
    header: Literal[True] | tuple[str, ...]
    """True where the first row names the columns, else their names."""
    encoding: str

    def rows(self, file: Path, stream: IO[bytes]) -> Iterator[tuple[int, list[str]]]:
        """Yield (line that it ends on, values) of each row, the header first; blank lines are no rows.

        Raises:
            ValueError: a row has more or fewer values than the header, a quote is not closed or does not end its value,
                or bytes are none of the encoding; the message names file and line.
        """
        is_utf_8 = codecs.lookup(self.encoding).name == "utf-8"
        text = io.TextIOWrapper(stream, "utf-8-sig" if is_utf_8 else self.encoding, newline="")
        csv.field_size_limit(MAX_CHARACTERS)
        reader = csv.reader(_lines(text), delimiter=self.delimiter, strict=True)
        width = None if self.header is True else len(self.header)
        if self.header is not True:
            yield 0, list(self.header)
        try:
            for values in reader:
                if not values:
                    continue
                if width is not None and len(values) != width:
                    raise ValueError(
                        f"{file}:{reader.line_num}: this row has {len(values)} values and the header {width}; correct"
                        f" the row, or the source's `delimiter` ({self.delimiter!r}) or `header` in params.yaml"
                    )
                width = len(values)
                yield reader.line_num, values
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{file} is not {self.encoding}: byte 0x{error.object[error.start]:02x} after line {reader.line_num}"
                f" ({error.reason}); set the source's `encoding` in params.yaml, to cp1252 for many files of Excel"
            ) from None
        except (csv.Error, UnicodeError) as error:
            raise ValueError(
                f"{file}:{reader.line_num}: {reason(error)}; correct the quotes of this row or one before, or the"
                f" source's `delimiter` ({self.delimiter!r}) or `encoding` in params.yaml"
            ) from None


@dataclass(frozen=True)
class CsvFile(PartOf[Found]):
    """The rows of one file, which has no middle to begin at: a line break may be within a value."""

    columns: tuple[str, ...]
    dialect: Dialect
    rows: Rows

    def read(self, counts: Counter[str]) -> Iterator[Document]:
        """One document a row: its text columns, those that are not empty, with a line break between them.

        Raises:
            ValueError: the file is malformed, or a row has no text where it must.
        """
        found = self.extent
        with opened(found.file) as stream:
            rows = self.dialect.rows(found.file, stream)
            _, names = next(rows)
            places = [names.index(column) for column in self.columns]
            counts["files"] += 1
            for number, (line, values) in enumerate(rows):
                counts["rows"] += 1
                text = "\n".join(values[place] for place in places if values[place])
                where = f"{found.file}:{line}, {' and '.join(map(repr, self.columns))},"
                document = self.rows.document(f"{found.name}:{number:0{DIGITS}d}", text, counts, where)
                if document is not None:
                    yield document


def parts(
    path: Path,
    pattern: str | Mapping[str, str],
    columns: Sequence[str],
    delimiter: str,
    header: Literal[True] | Sequence[str],
    encoding: str,
    empty_rows: Empty,
    detokenizer: str | None,
) -> list[CsvFile]:
    """One a file.

    Args:
        path: the file or folder.
        pattern: a glob of the files that count, or one for each of the source's own splits.
        columns: those with the text.
        delimiter: the character between values.
        header: True where the first row names the columns, else their names.
        encoding: one that Python knows; a byte-order mark is no text.
        empty_rows: what to do with rows without text.
        detokenizer: a name in `DETOKENIZERS`, or None.

    Raises:
        ValueError: no file is found, one is of another format or encoding, or a column is missing or there twice.
    """
    files = matching_files(path, pattern)
    refuse_other_formats(files, "csv")
    dialect = Dialect(delimiter, True if header is True else tuple(header), encoding)
    for found in files:
        _check_beginning(found.file, dialect, columns)
    return [CsvFile(found, tuple(columns), dialect, Rows(empty_rows, detokenizer)) for found in files]


def _lines(text: io.TextIOWrapper) -> Iterator[str]:
    while line := text.readline(MAX_CHARACTERS + 1):
        if len(line) > MAX_CHARACTERS:
            raise csv.Error(f"the next line has more than {MAX_CHARACTERS:,} characters")
        yield line


def _check_beginning(file: Path, dialect: Dialect, columns: Sequence[str]) -> None:
    """Check byte-order mark, header and columns."""
    with opened(file) as stream:
        head = stream.read(4)
    marked = next((encoding for mark, encoding in BYTE_ORDER_MARKS.items() if head.startswith(mark)), None)
    if marked is not None and not codecs.lookup(dialect.encoding).name.startswith(marked):
        raise ValueError(
            f"{file} begins as {marked} does and not as {dialect.encoding}; set the source's `encoding` in params.yaml"
            f" to {marked}"
        )
    with opened(file) as stream:
        rows = dialect.rows(file, stream)
        _, names = next(rows, (0, None))
        first = next(rows, (0, []))[1] if dialect.header is not True else []
    if names is None:
        raise ValueError(f"{file} is empty; remove it, or narrow the source's `pattern`")
    if names == first:
        raise ValueError(f"the first row of {file} names the columns; set the source's `header` in params.yaml to true")
    other = next((sign for sign in DELIMITERS if sign in names[0] and sign != dialect.delimiter), None)
    if len(names) == 1 and other is not None and set(columns) - set(names):
        raise ValueError(
            f"{file} has the only column {names[0]!r}; set the source's `delimiter` in params.yaml to {other!r}"
        )
    check_columns(f"the header (the first row, or the source's `header`) of {file}", names, columns)
