"""Tables with one document or image per row: Parquet and Arrow files, and data sets on the Hugging Face Hub."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mdpipe.data.raw import Document, ImageBatch
from mdpipe.data.sources.files import READ_BYTES, SourceFile, check_columns, check_files, row_name
from mdpipe.data.sources.images import decode_batches
from mdpipe.data.sources.text import join_texts, make_document
from mdpipe.data.sources.writer import SourceShard
from mdpipe.messages import reason
from mdpipe.params.sources import HuggingFaceSource, ParquetImagesSource, ParquetSource

ROWS_PER_BATCH = 256
"""Rows that are in memory together."""
ARROW_FILE = b"ARROW1"
"""First bytes of the Arrow format that can be read from any position; the other one is a stream."""

STATE_DIGITS = 12
"""Hex digits of a hash: 48 bits distinguish any number of states."""

TableSource = ParquetSource | ParquetImagesSource | HuggingFaceSource


@dataclass(frozen=True)
class Rows:
    """Neighboring rows of a table, which every process reads by itself."""

    name: str
    """Name of the file, or of the split on the Hub."""
    where: str
    """Name of the table in messages."""
    first_row: int
    batches: Callable[[Sequence[str]], Iterator[pa.RecordBatch | pa.Table]]
    """Yields some columns of the rows, a few at a time."""
    files: int = 0
    """Number of files that begin here, 0 or 1. Files of the Hub are not counted: they have any layout."""

    def read(self, columns: Sequence[str], counts: Counter[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the name and the values of each row, and count files and rows.

        Raises:
            ValueError: The table is broken, or its text is not UTF-8.
        """
        counts["files"] += self.files
        row = self.first_row
        for batch in self.batches(columns):
            try:
                some = batch.to_pylist()
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{self.where} has text that is not UTF-8 in one of the rows {row} to {row + len(batch) - 1}"
                    f" ({error.reason}); write the column again as UTF-8"
                ) from None
            for offset, values in enumerate(some):
                counts["rows"] += 1
                yield row_name(self.name, row + offset), values
            row += len(some)


def open_parquet(source: ParquetSource | ParquetImagesSource) -> list[SourceShard]:
    """Return neighboring row groups of each file as shards."""
    shards = []
    for file in check_files(source, check_head):
        names = _class_names(file.path, source.label_column) if isinstance(source, ParquetImagesSource) else ()
        shards += [SourceShard(file.split, size, _reader(source, rows, names)) for rows, size in _row_groups(file)]
    return shards


def check_head(source: ParquetSource | ParquetImagesSource, file: SourceFile) -> None:
    """Check the columns of a file."""
    if file.path.suffix not in (".parquet", ".arrow"):
        raise ValueError(f"{file.path} is neither .parquet nor .arrow; narrow the source's `pattern`")
    check_columns(source, str(file.path), _schema(file.path).names)


def open_huggingface(source: HuggingFaceSource, downloads: Path) -> list[SourceShard]:
    """Return neighboring rows of each split as shards.

    The library downloads missing files, resumes downloads, and supports proxies, HF_ENDPOINT for a mirror,
    HF_HUB_OFFLINE and HF_TOKEN. It keeps downloads in HF_HOME, and the rows that it makes of them in `downloads`.

    Raises:
        ValueError: The data set cannot be loaded, or has no such configuration, split or column.
    """
    import datasets

    datasets.logging.set_verbosity_error()
    name, cache = source.name, _cache(downloads / "hub", Path(source.name))
    shards = []
    for split in source.splits:
        try:
            table = datasets.load_dataset(
                name, source.config, split=split, revision=source.revision, cache_dir=str(cache)
            )
        except Exception as error:
            # The library passes on whatever its HTTP client raises.
            raise ValueError(
                f"the data set {name} (config {source.config}, split {split}, revision {source.revision}) cannot be"
                f" loaded ({reason(error)}); if this machine has no network, fetch it elsewhere with `hf download"
                f" --repo-type dataset {name} --local-dir FOLDER` and give the folder as the source's `name` and"
                " `path`; if the name is wrong, correct it in params.yaml"
            ) from None
        check_columns(source, name, table.column_names)
        table = table.select_columns([*source.named_columns]).with_format("arrow")
        names = tuple(getattr(table.features.get(source.label_column), "names", ()))
        row_bytes = max(1, table.data.nbytes // max(1, len(table)))
        count = max(1, READ_BYTES // row_bytes)
        for first in range(0, len(table), count):
            some = table.select(range(first, min(first + count, len(table))))
            rows = Rows(split, f"the split {split!r}", first, partial(_hub_batches, some))
            shards.append(SourceShard(split, row_bytes * len(some), _reader(source, rows, names)))
    return shards


def _reader(
    source: TableSource, rows: Rows, class_names: tuple[str, ...]
) -> Callable[[Counter[str]], Iterator[Document] | Iterator[ImageBatch]]:
    if isinstance(source, ParquetSource) or (isinstance(source, HuggingFaceSource) and source.image_column is None):
        return partial(_read_texts, source, rows)
    return partial(_read_images, source, rows, class_names)


def _read_texts(source: ParquetSource | HuggingFaceSource, rows: Rows, counts: Counter[str]) -> Iterator[Document]:
    """Yield at most one document per row."""
    for name, values in rows.read(source.columns, counts):
        for column, text in values.items():
            if text is not None and not isinstance(text, str):
                raise ValueError(
                    f"{name} has no text in the column {column!r} but {type(text).__name__}; choose another column"
                )
        yield from make_document(source, name, join_texts(map(values.get, source.columns)), counts, name)


def _read_images(
    source: ParquetImagesSource | HuggingFaceSource, rows: Rows, class_names: tuple[str, ...], counts: Counter[str]
) -> Iterator[ImageBatch]:
    """Yield the images in batches: the bytes of an image file in each row, or a structure with them under "bytes"."""

    def images() -> Iterator[tuple[str, bytes, int | None]]:
        for name, values in rows.read([*source.named_columns], counts):
            content = _image_content(source, values, name)
            yield name, content, _label(values, name, source.label_column, class_names)

    return decode_batches(images(), source, counts, class_names)


def _image_content(source: ParquetImagesSource | HuggingFaceSource, values: dict[str, Any], name: str) -> bytes:
    content: Any = values[source.image_column or ""]
    if isinstance(content, dict):
        content, path = content.get("bytes"), content.get("path")
        # If the data set consists of image files, `datasets` has only their paths.
        if content is None and path is not None and isinstance(source, HuggingFaceSource):
            return Path(path).read_bytes()
    if not isinstance(content, bytes):
        column = source.image_column
        raise ValueError(f"{name} has no bytes of an image in the column {column!r}; choose another column")  # noqa: TRY004
    return content


def _label(values: dict[str, Any], name: str, column: str | None, class_names: tuple[str, ...]) -> int | None:
    if column is None:
        return None
    value = values[column]
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{name} has no class in the column {column!r} but {value!r}; classes are numbers from 0")  # noqa: TRY004
    if value < 0 or (class_names and value >= len(class_names)):
        allowed = f"0 to {len(class_names) - 1}" if class_names else "from 0 on"
        raise ValueError(f"{name} has the class {value} in the column {column!r}; allowed are {allowed}")
    return value


def _row_groups(file: SourceFile) -> Iterator[tuple[Rows, int]]:
    """Yield the row groups of a Parquet file, or record batches of an Arrow file, that together have about READ_BYTES.

    With their bytes before compression.
    """
    path, sizes = file.path, _group_sizes(file.path)
    first = begin = size = row = 0
    for end, (count, bytes_) in enumerate(sizes or [(0, 0)], start=1):
        row, size = row + count, size + bytes_
        if size >= READ_BYTES or end >= len(sizes):
            batches = partial(_file_batches, path, range(begin, min(end, len(sizes))))
            yield Rows(file.name, str(path), first, batches, files=int(begin == 0)), size
            begin, first, size = end, row, 0


def _file_batches(path: Path, groups: range, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    with _open_table(path) as table:
        if isinstance(table, pq.ParquetFile):
            yield from table.iter_batches(ROWS_PER_BATCH, row_groups=list(groups), columns=list(columns))
            return
        for number, batch in enumerate(_arrow_batches(table)):
            if number in groups:
                chosen = batch.select(list(columns))
                for start in range(0, len(chosen), ROWS_PER_BATCH):
                    yield chosen.slice(start, ROWS_PER_BATCH)


def _hub_batches(table: Any, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Yield rows of a `datasets.Dataset`, whose files every process memory-maps."""
    return (batch.select(list(columns)) for batch in table.iter(ROWS_PER_BATCH))


def _group_sizes(path: Path) -> list[tuple[int, int]]:
    """Return rows and bytes, before compression, of each row group or record batch."""
    with _open_table(path) as table:
        if not isinstance(table, pq.ParquetFile):
            return [(len(batch), batch.nbytes) for batch in _arrow_batches(table)]
        groups = map(table.metadata.row_group, range(table.num_row_groups))
        return [(group.num_rows, group.total_byte_size) for group in groups]


def _class_names(path: Path, column: str | None) -> tuple[str, ...]:
    """Return the names of the classes, which `datasets` stores in the metadata of a file if it wrote the file."""
    stored = dict(_schema(path).metadata or {}).get(b"huggingface")
    features = json.loads(stored).get("info", {}).get("features", {}) if stored else {}
    return tuple(features.get(column or "", {}).get("names", ()))


def _schema(path: Path) -> pa.Schema:
    with _open_table(path) as table:
        return table.schema_arrow if isinstance(table, pq.ParquetFile) else table.schema


@contextmanager
def _open_table(path: Path) -> Iterator[pq.ParquetFile | pa.RecordBatchFileReader | pa.RecordBatchStreamReader]:
    """Open a Parquet file, or either of the two Arrow formats: `datasets` writes streams, others files.

    Raises:
        ValueError: It is broken, whatever arrow raises about that; the message names the file.
    """
    try:
        if path.suffix == ".parquet":
            with pq.ParquetFile(path) as table:
                yield table
        else:
            with pa.memory_map(str(path)) as source:
                is_file = source.read(len(ARROW_FILE)) == ARROW_FILE
                source.seek(0)
                yield pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is truncated or no {path.suffix} file ({reason(error)}); replace it") from None


def _arrow_batches(reader: pa.RecordBatchFileReader | pa.RecordBatchStreamReader) -> Iterator[pa.RecordBatch]:
    """Yield the record batches one by one: those of a compressed file may not fit into memory together."""
    if isinstance(reader, pa.RecordBatchFileReader):
        return map(reader.get_batch, range(reader.num_record_batches))
    return iter(reader)


def _cache(folder: Path, name: Path) -> Path:
    """Return where the library keeps its rows: for a local folder, which it takes for unchanged, one folder per state.

    A state is the names, sizes and times of the files.
    """
    if not name.is_dir():
        return folder
    files = [(file, file.stat()) for file in sorted(name.rglob("*")) if file.is_file()]
    state = [(str(file), status.st_size, status.st_mtime_ns) for file, status in files]
    return folder / hashlib.sha256(repr(state).encode()).hexdigest()[:STATE_DIGITS]
