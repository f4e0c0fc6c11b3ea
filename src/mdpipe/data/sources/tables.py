"""Tables with one document or image per row: Parquet and Arrow files, and data sets on the Hugging Face Hub."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mdpipe.data.raw import Document, ImageBatch
from mdpipe.data.sources.files import (
    SHARD_BYTES,
    SourceFile,
    check_columns,
    find_files,
    refuse_other_formats,
    row_name,
)
from mdpipe.data.sources.images import decode_batches
from mdpipe.data.sources.text import make_document
from mdpipe.data.sources.writer import SourceShard
from mdpipe.messages import reason
from mdpipe.params.sources import HuggingFaceSource, ParquetImagesSource, ParquetSource

ROWS_PER_BATCH = 256
"""Rows that are in memory together."""
ARROW_FILE = b"ARROW1"
"""First bytes of the Arrow format that can be read from any position; the other one is a stream."""

STATE_DIGITS = 12
"""Hex digits of a hash: 48 bits distinguish any number of states."""

TextTable = ParquetSource | HuggingFaceSource
ImageTable = ParquetImagesSource | HuggingFaceSource


def open_parquet(source: ParquetSource | ParquetImagesSource) -> list[SourceShard]:
    """Return neighboring row groups of each file as shards.

    Raises:
        ValueError: no file matches, one is broken or of another format, or a column is missing or repeated.
    """
    files = find_files(Path(source.path), source.pattern)
    refuse_other_formats(files, source.kind)
    shards = []
    for file in files:
        read: Callable[..., Iterator[Document] | Iterator[ImageBatch]]
        if isinstance(source, ParquetSource):
            columns, read = [source.column], partial(read_texts, source)
        else:
            names = _features(file.path).get(source.label_column or "", {}).get("names", ())
            columns, read = image_columns(source), partial(read_images, source, tuple(names))
        shards += [SourceShard(file.split, size, partial(read, rows)) for rows, size in _row_groups(file, columns)]
    return shards


def read_texts(source: TextTable, table: "RowGroups | HubRows", counts: Counter[str]) -> Iterator[Document]:
    """Yield one document per row.

    Raises:
        ValueError: the table is broken, the column holds no text, or a row has none but must.
    """
    counts.update(files=table.files)
    for name, values in table.rows([source.column]):
        counts["rows"] += 1
        text = values[source.column]
        if text is not None and not isinstance(text, str):
            raise ValueError(
                f"{name} has no text in the column {source.column!r} but {type(text).__name__}; choose another column"
            )
        document = make_document(source, name, text or "", counts, f"{name}, column {source.column!r},")
        if document is not None:
            yield document


def image_columns(source: ImageTable) -> list[str]:
    """Return the columns that are read for images."""
    return [column for column in (source.image_column, source.label_column) if column is not None]


def read_images(
    source: ImageTable, class_names: tuple[str, ...], table: "RowGroups | HubRows", counts: Counter[str]
) -> Iterator[ImageBatch]:
    """Yield the images in batches: the bytes of an image file in each row, or a structure with them under "bytes".

    Raises:
        ValueError: the table is broken, or a row has no image, a broken one, one of another size or mode, or a label
            that is out of range.
    """
    counts.update(files=table.files)

    def images() -> Iterator[tuple[str, bytes, int | None]]:
        for name, values in table.rows(image_columns(source)):
            counts["rows"] += 1
            content = _image_content(values[source.image_column or ""], name, source.image_column)
            column = source.label_column
            yield name, content, None if column is None else _label(values[column], name, column, class_names)

    return decode_batches(images(), source, counts, class_names)


def _image_content(value: object, name: str, column: str | None) -> bytes:
    content = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(content, bytes):
        raise ValueError(f"{name} has no bytes of an image in the column {column!r}; choose another column")  # noqa: TRY004
    return content


def _label(value: object, name: str, column: str, class_names: tuple[str, ...]) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{name} has no class in the column {column!r} but {value!r}; classes are numbers from 0")  # noqa: TRY004
    if value < 0 or (class_names and value >= len(class_names)):
        allowed = f"0 to {len(class_names) - 1}" if class_names else "from 0 on"
        raise ValueError(f"{name} has the class {value} in the column {column!r}; allowed are {allowed}")
    return value


def not_utf8(where: str, first: int, count: int, error: UnicodeDecodeError) -> str:
    """Explain that text among these rows of a table is not UTF-8."""
    return (
        f"{where} has text that is not UTF-8 in one of the rows {first} to {first + count - 1} ({error.reason}); write"
        " the column again as UTF-8"
    )


@dataclass(frozen=True)
class RowGroups:
    """Some row groups of a Parquet file, or record batches of an Arrow file."""

    file: SourceFile
    groups: tuple[int, ...]
    first_row: int
    files: int
    """1 if the file begins here, else 0."""

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the name and the values of each row.

        Raises:
            ValueError: the file is broken, or its text is not UTF-8.
        """
        row = self.first_row
        with _readable(self.file.path):
            for batch in self._batches(columns):
                try:
                    some = batch.to_pylist()
                except UnicodeDecodeError as error:
                    raise ValueError(not_utf8(str(self.file.path), row, len(batch), error)) from None
                for values in some:
                    yield row_name(self.file.name, row), values
                    row += 1

    def _batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        if self.file.path.suffix == ".parquet":
            with pq.ParquetFile(self.file.path) as file:
                yield from file.iter_batches(ROWS_PER_BATCH, row_groups=list(self.groups), columns=list(columns))
            return
        for number, batch in enumerate(_arrow_batches(self.file.path)):
            if number in self.groups:
                chosen = batch.select(list(columns))
                for start in range(0, len(chosen), ROWS_PER_BATCH):
                    yield chosen.slice(start, ROWS_PER_BATCH)


def _row_groups(file: SourceFile, columns: Sequence[str]) -> Iterator[tuple[RowGroups, int]]:
    """Yield the row groups of a file that together have about SHARD_BYTES, and their bytes before compression."""
    path = file.path
    with _readable(path):
        if path.suffix == ".parquet":
            metadata = pq.read_metadata(path)
            groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
            sizes = [(group.num_rows, group.total_byte_size) for group in groups]
        elif path.suffix == ".arrow":
            sizes = [(len(batch), batch.nbytes) for batch in _arrow_batches(path)]
        else:
            raise ValueError(f"{path} is neither .parquet nor .arrow; narrow the source's `pattern`")
        names = _schema(path).names
    check_columns(str(path), names, columns)
    if not sizes:
        yield RowGroups(file, (), 0, files=1), 0
    first = begin = size = row = 0
    for group, (rows, bytes_) in enumerate(sizes):
        row, size = row + rows, size + bytes_
        if size >= SHARD_BYTES or group == len(sizes) - 1:
            yield RowGroups(file, tuple(range(begin, group + 1)), first, files=int(begin == 0)), size
            begin, first, size = group + 1, row, 0


def count_rows(path: Path) -> int:
    """Return the number of rows of a Parquet or Arrow file, from its metadata.

    Raises:
        ValueError: the file is broken.
    """
    with _readable(path):
        if path.suffix == ".parquet":
            rows: int = pq.read_metadata(path).num_rows
            return rows
        return sum(map(len, _arrow_batches(path)))


def first_image(source: ParquetImagesSource, file: SourceFile) -> bytes:
    """Return the content of the image file in the first row of a table.

    Raises:
        ValueError: the table is broken or empty, or has no such column or no image there.
    """
    for rows, _ in _row_groups(file, [source.image_column]):
        for name, values in rows.rows([source.image_column]):
            return _image_content(values[source.image_column], name, source.image_column)
    raise ValueError(f"{file.path} has no rows")


def _features(path: Path) -> Mapping[str, Any]:
    """Return what `datasets` stores about the columns of a file in its metadata, if it wrote the file."""
    with _readable(path):
        schema = _schema(path)
    stored = (schema.metadata or {}).get(b"huggingface")
    found: Mapping[str, Any] = json.loads(stored).get("info", {}).get("features", {}) if stored else {}
    return found


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Raise ValueError, which names the file, for whatever arrow raises about a broken one."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is truncated or no {path.suffix} file ({reason(error)}); replace it") from None


def _arrow_batches(path: Path) -> Iterator[pa.RecordBatch]:
    with _arrow_reader(path) as reader:
        if isinstance(reader, pa.RecordBatchFileReader):
            for number in range(reader.num_record_batches):
                yield reader.get_batch(number)
        else:
            yield from reader


def _schema(path: Path) -> pa.Schema:
    if path.suffix == ".parquet":
        return pq.read_schema(path)
    with _arrow_reader(path) as reader:
        return reader.schema


@contextmanager
def _arrow_reader(path: Path) -> Iterator[pa.RecordBatchFileReader | pa.RecordBatchStreamReader]:
    """Open either of the two Arrow formats: `datasets` writes streams, others files."""
    with pa.memory_map(str(path)) as source:
        is_file = source.read(len(ARROW_FILE)) == ARROW_FILE
        source.seek(0)
        yield pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)


@dataclass(frozen=True)
class HubRows:
    """Neighboring rows of a split, in the library's files, which every process memory-maps."""

    split: str
    table: Any
    """`datasets.Dataset`."""
    first_row: int
    files: int = 0
    """Not counted, because a repository has files of any layout."""

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the name and the values of each row.

        Raises:
            ValueError: a text is not UTF-8.
        """
        for start in range(0, len(self.table), ROWS_PER_BATCH):
            first = self.first_row + start
            try:
                some = self.table[start : start + ROWS_PER_BATCH]
            except UnicodeDecodeError as error:
                count = min(ROWS_PER_BATCH, len(self.table) - start)
                raise ValueError(not_utf8(f"the split {self.split!r}", first, count, error)) from None
            for row, values in enumerate(zip(*(some[column] for column in columns), strict=True), start=first):
                yield row_name(self.split, row), dict(zip(columns, map(_content, values), strict=True))


def open_huggingface(source: HuggingFaceSource, downloads: Path) -> list[SourceShard]:
    """Return neighboring rows of each split as shards.

    The library downloads missing files, resumes downloads, and supports proxies, HF_ENDPOINT for a mirror,
    HF_HUB_OFFLINE and HF_TOKEN. It keeps downloads in HF_HOME, and the rows that it makes of them in `downloads`.

    Raises:
        ValueError: the data set cannot be loaded, or has no such configuration, split or column.
    """
    import datasets
    from datasets import Image, load_dataset

    datasets.logging.set_verbosity_error()
    name, cache = source.name, _cache(downloads / "hub", Path(source.name))
    columns = [source.column] if source.image_column is None else image_columns(source)
    shards = []
    for split in source.splits:
        try:
            table = load_dataset(name, source.config, split=split, revision=source.revision, cache_dir=str(cache))
        except Exception as error:
            # The library passes on whatever its HTTP client raises.
            raise ValueError(
                f"the data set {name} (config {source.config}, split {split}, revision {source.revision}) cannot be"
                f" loaded ({reason(error)}); if this machine has no network, fetch it elsewhere with `hf download"
                f" --repo-type dataset {name} --local-dir FOLDER` and give the folder as the source's `name` and"
                " `path`; if the name is wrong, correct it in params.yaml"
            ) from None
        check_columns(name, table.column_names, columns)
        table = table.select_columns(columns)
        for column in columns:
            if isinstance(table.features[column], Image):
                table = table.cast_column(column, Image(decode=False))
        read: Callable[..., Iterator[Document] | Iterator[ImageBatch]] = partial(read_texts, source)
        if source.image_column is not None:
            names = tuple(getattr(table.features.get(source.label_column), "names", ()))
            read = partial(read_images, source, names)
        row_bytes = max(1, table.data.nbytes // max(1, len(table)))
        count = max(1, SHARD_BYTES // row_bytes)
        for first in range(0, len(table), count):
            rows = table.select(range(first, min(first + count, len(table))))
            shards.append(SourceShard(split, row_bytes * len(rows), partial(read, HubRows(split, rows, first))))
    return shards


def _cache(folder: Path, name: Path) -> Path:
    """Return where the library keeps its rows: for a local folder, which it takes for unchanged, one folder per state.

    A state is the names, sizes and times of the files.
    """
    if not name.is_dir():
        return folder
    files = [(file, file.stat()) for file in sorted(name.rglob("*")) if file.is_file()]
    state = [(str(file), status.st_size, status.st_mtime_ns) for file, status in files]
    return folder / hashlib.sha256(repr(state).encode()).hexdigest()[:STATE_DIGITS]


def _content(value: Any) -> Any:
    """Return a value; if the data set consists of image files, `datasets` has only their paths."""
    if isinstance(value, dict) and value.get("bytes") is None and value.get("path") is not None:
        return Path(value["path"]).read_bytes()
    return value
