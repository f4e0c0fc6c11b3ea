"""Data sets on the Hugging Face Hub, through `datasets`: one document or image per row."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mdpipe.data.raw import Document, ImageBatch
from mdpipe.data.sources.files import SHARD_BYTES, check_columns, row_name
from mdpipe.data.sources.tables import ROWS_PER_BATCH, image_columns, not_utf8, read_images, read_texts
from mdpipe.data.sources.writer import SourceShard
from mdpipe.messages import reason
from mdpipe.params.sources import HuggingFaceSource

STATE_DIGITS = 12
"""Hex digits of a hash: 48 bits tell any number of states apart."""


@dataclass(frozen=True)
class HubRows:
    """Neighboring rows of a split. They stay in the library's files, which every process memory-maps."""

    split: str
    table: Any
    """`datasets.Dataset`."""
    first_row: int

    @property
    def files(self) -> int:
        """Return 0: a repository has files of any layout."""
        return 0

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

    The library downloads what is missing: it resumes, and knows proxies, HF_ENDPOINT for a mirror, HF_HUB_OFFLINE and
    HF_TOKEN. It keeps downloads in HF_HOME, and the rows that it makes of them in `downloads`.

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
            raise ValueError(_explain(source, split, error)) from None
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
    """Return where the library keeps its rows: for a local folder, which it takes for unchanged, one place per state.

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


def _explain(source: HuggingFaceSource, split: str, error: Exception) -> str:
    name = source.name
    return (
        f"the data set {name} (config {source.config}, split {split}, revision {source.revision}) cannot be loaded"
        f" ({reason(error)}); if this machine has no network, fetch it elsewhere with `hf download --repo-type dataset"
        f" {name} --local-dir FOLDER` and give the folder as the source's `name` and `path`; if the name is wrong,"
        " correct it in params.yaml"
    )
