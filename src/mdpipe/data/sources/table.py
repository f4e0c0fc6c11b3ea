"""Text in parquet or arrow files of the user's own: one document a row."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mdpipe.data.raw.material import Document
from mdpipe.data.sources.extents import PartOf, Table
from mdpipe.data.sources.rows import Empty, Rows
from mdpipe.data.sources.table_files import table_parts


@dataclass(frozen=True)
class TextRows(PartOf[Table]):
    """Some rows of text."""

    column: str
    rows: Rows

    def read(self, counts: Counter[str]) -> Iterator[Document]:
        """One document a row.

        Raises:
            ValueError: the table is broken, the column holds no text, or a row has none where it must.
        """
        counts.update(files=self.extent.files)
        for name, values in self.extent.rows([self.column]):
            counts["rows"] += 1
            text = values[self.column]
            if text is not None and not isinstance(text, str):
                raise ValueError(
                    f"{name} has no text in the column {self.column!r} but {type(text).__name__}; choose another column"
                )
            document = self.rows.document(name, text or "", counts, f"{name}, column {self.column!r},")
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
    return [TextRows(table, column, rows) for table in table_parts(path, pattern, [column], "table")]
