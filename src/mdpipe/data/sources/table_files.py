"""Parquet and arrow files, row group by row group: neither is ever in memory as a whole."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mdpipe.data.sources.files import PART_BYTES, Found, matching_files
from mdpipe.data.sources.formats import refuse_other_formats
from mdpipe.messages import listed_names, reason

ROWS_AT_ONCE = 256
"""Rows that are in memory together."""
DIGITS = 10
"""Row numbers are padded with zeros, so that names sort as rows do."""
ARROW_FILE = b"ARROW1"
"""How the one of the two arrow formats begins that can be read from any place; the other is a stream."""


@dataclass(frozen=True)
class TableRows:
    """Some row groups of a parquet file, or record batches of an arrow file."""

    found: Found
    groups: tuple[int, ...]
    first_row: int
    size: int
    """Bytes, before they were packed."""

    @property
    def split(self) -> str | None:
        """That of its file."""
        return self.found.split

    @property
    def files(self) -> int:
        """Files that begin here."""
        return int(not self.groups or self.groups[0] == 0)

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """(name, values by column) of each.

        Raises:
            ValueError: the file is broken, or its text is not UTF-8.
        """
        row = self.first_row
        with _readable(self.found.file):
            for batch in self._batches(columns):
                try:
                    some = batch.to_pylist()
                except UnicodeDecodeError as error:
                    raise ValueError(not_utf8(str(self.found.file), row, len(batch), error)) from None
                for values in some:
                    yield f"{self.found.name}:{row:0{DIGITS}d}", values
                    row += 1

    def _batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        if self.found.file.suffix == ".parquet":
            with pq.ParquetFile(self.found.file) as file:
                yield from file.iter_batches(ROWS_AT_ONCE, row_groups=list(self.groups), columns=list(columns))
            return
        for number, batch in enumerate(_arrow_batches(self.found.file)):
            if number in self.groups:
                chosen = batch.select(list(columns))
                for start in range(0, len(chosen), ROWS_AT_ONCE):
                    yield chosen.slice(start, ROWS_AT_ONCE)


def not_utf8(where: str, first: int, count: int, error: UnicodeDecodeError) -> str:
    """Explain that text among these rows of a table is not UTF-8."""
    return (
        f"{where} has text that is not UTF-8 in one of the rows {first} to {first + count - 1} ({error.reason}); write"
        " the column again as UTF-8"
    )


def table_parts(path: Path, pattern: str | Mapping[str, str], columns: Sequence[str], kind: str) -> list[TableRows]:
    """The files of a source of this kind in parts of bounded size.

    Raises:
        ValueError: no file is found, one is broken or of another format, or a column is missing or there twice.
    """
    files = matching_files(path, pattern)
    refuse_other_formats(files, kind)
    return [part for found in files for part in _parts_of(found, columns)]


def features(file: Path) -> dict[str, Any]:
    """What `datasets` says of the columns of a file, in its metadata; empty where it says nothing."""
    with _readable(file):
        schema = pq.read_schema(file) if file.suffix == ".parquet" else _arrow_schema(file)
    stated = (schema.metadata or {}).get(b"huggingface")
    found: dict[str, Any] = json.loads(stated).get("info", {}).get("features", {}) if stated else {}
    return found


def _parts_of(found: Found, columns: Sequence[str]) -> list[TableRows]:
    with _readable(found.file):
        if found.file.suffix == ".parquet":
            metadata = pq.read_metadata(found.file)
            names = metadata.schema.to_arrow_schema().names
            sizes = [
                (metadata.row_group(group).num_rows, metadata.row_group(group).total_byte_size)
                for group in range(metadata.num_row_groups)
            ]
        elif found.file.suffix == ".arrow":
            names = _arrow_schema(found.file).names
            sizes = [(len(batch), batch.nbytes) for batch in _arrow_batches(found.file)]
        else:
            raise ValueError(f"{found.file} is neither .parquet nor .arrow; narrow the source's `pattern`")
    check_columns(str(found.file), names, columns)
    parts: list[TableRows] = []
    groups: list[int] = []
    size = rows = first = 0
    if not sizes:
        return [TableRows(found, (), 0, 0)]
    for group, (count, bytes_) in enumerate(sizes):
        groups.append(group)
        rows, size = rows + count, size + bytes_
        if size >= PART_BYTES or group == len(sizes) - 1:
            parts.append(TableRows(found, tuple(groups), first, size))
            groups, size, first = [], 0, rows
    return parts


def check_columns(where: str, names: Sequence[str], columns: Sequence[str]) -> None:
    """Make sure that a table has each of these columns once: of two, readers take one or the other.

    Raises:
        ValueError: it has not; the message begins with `where`.
    """
    for column in columns:
        if column not in names:
            raise ValueError(
                f"{where} has no column {column!r}, only {listed_names(list(names))}; correct it in the source's"
                " settings in params.yaml"
            )
        if list(names).count(column) > 1:
            raise ValueError(f"{where} has {list(names).count(column)} columns {column!r}; rename all but one")


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    """Turns what arrow says of a broken file into a ValueError that names it."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is truncated or no {file.suffix} file ({reason(error)}); replace it") from None


def _arrow_batches(file: Path) -> Iterator[pa.RecordBatch]:
    with _arrow_reader(file) as reader:
        if isinstance(reader, pa.RecordBatchFileReader):
            for number in range(reader.num_record_batches):
                yield reader.get_batch(number)
        else:
            yield from reader


def _arrow_schema(file: Path) -> pa.Schema:
    with _arrow_reader(file) as reader:
        return reader.schema


@contextmanager
def _arrow_reader(file: Path) -> Iterator[pa.RecordBatchFileReader | pa.RecordBatchStreamReader]:
    """Of either of the two arrow formats: `datasets` writes streams, others files."""
    with pa.memory_map(str(file)) as source:
        is_file = source.read(len(ARROW_FILE)) == ARROW_FILE
        source.seek(0)
        yield pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)
