"""Text in parquet or arrow files of the user's own: one document a row."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mdpipe.data.raw.material import Document
from mdpipe.data.sources.rows import Empty, Rows
from mdpipe.data.sources.table_files import TableRows, table_parts


@dataclass(frozen=True)
class TextRows:
    """Some rows of a file."""

    table: TableRows
    column: str
    rows: Rows

    @property
    def split(self) -> str | None:
        """That of its file."""
        return self.table.found.split

    @property
    def size(self) -> int:
        """Bytes."""
        return self.table.size

    def read(self, counts: Counter[str]) -> Iterator[Document]:
        """One document a row.

        Raises:
            ValueError: the file is broken, or a row has no text.
        """
        for row, values in self.table.rows([self.column]):
            document = text_row(values[self.column], self.table.name(row), self.column, self.rows, counts)
            if document is not None:
                yield document


def parts(
    path: Path, pattern: str | Mapping[str, str], column: str, empty_rows: Empty, detokenizer: str | None
) -> list[TextRows]:
    """The rows of a file, or of a folder's files that fit.

    Raises:
        ValueError: no file is found, one is broken, or it has no such column.
    """
    rows = Rows(empty_rows, detokenizer)
    return [TextRows(table, column, rows) for table in table_parts(path, pattern, [column])]


def text_row(value: object, name: str, column: str, rows: Rows, counts: Counter[str]) -> Document | None:
    """The document of a row, or None if it is left out.

    Raises:
        ValueError: the column holds no text, or none where it must.
    """
    if value is not None and not isinstance(value, str):
        raise ValueError(
            f"{name} has no text in the column {column!r} but {type(value).__name__}; choose another column"
        )
    return rows.document(name, value or "", counts, f"{name}, column {column!r},")
