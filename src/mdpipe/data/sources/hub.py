"""Text of a data set on a hub, by its name and through `datasets`: one document a row."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mdpipe.data.sources.files import PART_BYTES
from mdpipe.data.sources.rows import Empty, Rows
from mdpipe.data.sources.table import TextRows
from mdpipe.data.sources.table_files import DIGITS, ROWS_AT_ONCE, check_columns, not_utf8
from mdpipe.messages import reason

STATE_DIGITS = 12
"""Hex digits of a hash: 48 bits tell any number of states apart."""


@dataclass(frozen=True)
class HubRows:
    """Neighbouring rows of a split. They stay in the library's files, which every process maps into its memory."""

    split: str
    table: Any
    """`datasets.Dataset`."""
    first_row: int
    size: int
    files: int = 0
    """None is known: a repository has files of any layout."""

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """(name, values by column) of each.

        Raises:
            ValueError: a text is not UTF-8.
        """
        for start in range(0, len(self.table), ROWS_AT_ONCE):
            try:
                some = self.table[start : start + ROWS_AT_ONCE]
            except UnicodeDecodeError as error:
                first, count = self.first_row + start, min(ROWS_AT_ONCE, len(self.table) - start)
                raise ValueError(not_utf8(f"the split {self.split!r}", first, count, error)) from None
            for offset, values in enumerate(zip(*(some[column] for column in columns), strict=True)):
                row = self.first_row + start + offset
                yield f"{self.split}:{row:0{DIGITS}d}", dict(zip(columns, map(_content, values), strict=True))


def parts(
    downloads: Path,
    name: str,
    config: str | None,
    splits: Sequence[str],
    column: str,
    revision: str | None,
    empty_rows: Empty,
    detokenizer: str | None,
) -> list[TextRows]:
    """The rows of these splits.

    Raises:
        ValueError: the data set cannot be had, or has no such configuration, split or column.
    """
    rows = Rows(empty_rows, detokenizer)
    tables = hub_tables(downloads, name, config, splits, [column], revision)
    return [TextRows(table, column, rows) for table in tables]


def hub_tables(
    downloads: Path, name: str, config: str | None, splits: Sequence[str], columns: Sequence[str], revision: str | None
) -> list[HubRows]:
    """These columns of these splits, in parts of bounded size.

    The library fetches what is missing: it goes on with a broken download, knows proxies, HF_ENDPOINT for a mirror,
    HF_HUB_OFFLINE and HF_TOKEN. It keeps what it fetches in HF_HOME, and the rows that it makes of it in `downloads`.

    Args:
        downloads: a folder.
        name: on the hub, or a local folder of the same layout.
        config: of the data set, or None for its only one.
        splits: their names on the hub.
        columns: that are needed.
        revision: of the repository, a commit at best; None for the newest.

    Raises:
        ValueError: the data set cannot be had, or has no such configuration, split or column.
    """
    import datasets
    from datasets import Image, load_dataset

    datasets.logging.set_verbosity_error()
    cache = _cache(downloads / "hub", Path(name))
    tables = []
    for split in splits:
        try:
            table = load_dataset(name, config, split=split, revision=revision, cache_dir=str(cache))
        except Exception as error:
            # The library lets through whatever the one below it raises, which has an HTTP client of its own.
            raise ValueError(_explained(name, config, split, revision, error)) from None
        check_columns(name, table.column_names, columns)
        table = table.select_columns(list(columns))
        for column in columns:
            if isinstance(table.features[column], Image):
                table = table.cast_column(column, Image(decode=False))
        bytes_a_row = max(1, table.data.nbytes // max(1, len(table)))
        count = max(1, PART_BYTES // bytes_a_row)
        for first in range(0, len(table), count):
            part = table.select(range(first, min(first + count, len(table))))
            tables.append(HubRows(split, part, first, bytes_a_row * len(part)))
    return tables


def _cache(folder: Path, name: Path) -> Path:
    """Return where the library keeps its rows: of a local folder, which it takes for unchanged, a place for each state.

    A state is the names, sizes and times of the files.
    """
    if not name.is_dir():
        return folder
    files = [(file, file.stat()) for file in sorted(name.rglob("*")) if file.is_file()]
    state = [(str(file), status.st_size, status.st_mtime_ns) for file, status in files]
    return folder / hashlib.sha256(repr(state).encode()).hexdigest()[:STATE_DIGITS]


def _content(value: Any) -> Any:
    """Of a data set that consists of picture files, `datasets` keeps no more than where they are."""
    if isinstance(value, dict) and value.get("bytes") is None and value.get("path") is not None:
        return Path(value["path"]).read_bytes()
    return value


def _explained(name: str, config: str | None, split: str, revision: str | None, error: Exception) -> str:
    return (
        f"the data set {name} (config {config}, split {split}, revision {revision}) cannot be had ({reason(error)}); if"
        f" this machine has no network, fetch it elsewhere with `hf download --repo-type dataset {name} --local-dir"
        " FOLDER` and give the folder as the source's `name` and `path`; if the name is wrong, correct it in"
        " params.yaml"
    )
