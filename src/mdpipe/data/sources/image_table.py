"""Pictures in parquet or arrow files of the user's own, as hubs keep them: one a row, the bytes of a picture file."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from mdpipe.data.raw.material import Pictures
from mdpipe.data.raw.writing import ONE_SIZE
from mdpipe.data.sources.pictures import BATCH, Mode, Wanted, described, pixels_of
from mdpipe.data.sources.table_files import TableRows, features, table_parts


@dataclass(frozen=True)
class PictureRows:
    """Some rows of a file."""

    table: TableRows
    image: str
    label: str | None
    class_names: tuple[str, ...]
    wanted: Wanted

    @property
    def split(self) -> str | None:
        """That of its file."""
        return self.table.found.split

    @property
    def size(self) -> int:
        """Bytes."""
        return self.table.size

    def read(self, counts: Counter[str]) -> Iterator[Pictures]:  # noqa: ARG002
        """The pictures in order, in batches.

        Raises:
            ValueError: the file is broken, or `picture_batches` says so.
        """
        columns = [self.image] if self.label is None else [self.image, self.label]
        rows = ((self.table.name(row), values) for row, values in self.table.rows(columns))
        yield from picture_batches(rows, self.image, self.label, self.class_names, self.wanted)


def parts(
    path: Path, pattern: str | Mapping[str, str], image: str, label: str | None, mode: Mode | None, resize: int | None
) -> list[PictureRows]:
    """The rows of a file, or of a folder's files that fit.

    Args:
        path: the file or folder.
        pattern: a glob of the files that count, or one for each of the source's own splits.
        image: the column with the picture file's bytes, or a structure with them under "bytes".
        label: the column with the class's number, or None for pictures without.
        mode: what pictures are converted to, or None to refuse those that are neither grey nor RGB.
        resize: edge of the squares that they are cut and shrunk to, or None for pictures of one size.

    Raises:
        ValueError: no file is found, one is broken, or it has no such column.
    """
    columns = [image] if label is None else [image, label]
    found = []
    for table in table_parts(path, pattern, columns):
        names = features(table.found.file).get(label or "", {}).get("names", ())
        found.append(PictureRows(table, image, label, tuple(names), Wanted(mode, resize)))
    return found


def picture_batches(
    rows: Iterable[tuple[str, Mapping[str, Any]]],
    image: str,
    label: str | None,
    class_names: tuple[str, ...],
    wanted: Wanted,
) -> Iterator[Pictures]:
    """Rows, which have names, as pictures in batches.

    Raises:
        ValueError: a row has no picture or a broken one, one of another size or mode, or a label that is out of range.
    """
    rows = iter(rows)
    first = None
    while batch := list(islice(rows, BATCH)):
        images = []
        for name, values in batch:
            pixels = pixels_of(_content(values[image], name, image), name, wanted)
            first = pixels if first is None else first
            if pixels.shape != first.shape:
                raise ValueError(f"{name} is {described(pixels)} but the first one is {described(first)}; {ONE_SIZE}")
            images.append(pixels)
        labels = None
        if label is not None:
            labels = np.array([_label(values[label], name, label, class_names) for name, values in batch], np.int64)
        yield Pictures(np.stack(images), None, 255, labels, class_names)


def _content(value: object, name: str, column: str) -> bytes:
    content = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(content, bytes):
        raise ValueError(f"{name} has no bytes of a picture in the column {column!r}; choose another column")  # noqa: TRY004
    return content


def _label(value: object, name: str, column: str, class_names: tuple[str, ...]) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{name} has no class in the column {column!r} but {value!r}; classes are numbers from 0")  # noqa: TRY004
    if value < 0 or (class_names and value >= len(class_names)):
        allowed = f"0 to {len(class_names) - 1}" if class_names else "from 0 on"
        raise ValueError(f"{name} has the class {value} in the column {column!r}; allowed are {allowed}")
    return value
