"""Pictures in parquet or arrow files of the user's own, as hubs keep them: one a row, the bytes of a picture file."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdpipe.data.raw.material import Pictures
from mdpipe.data.sources.extents import PartOf, Table
from mdpipe.data.sources.pictures import BATCH, Alike, Mode, Wanted
from mdpipe.data.sources.table_files import features, table_parts


@dataclass(frozen=True)
class PictureRows(PartOf[Table]):
    """Some rows with pictures."""

    image: str
    label: str | None
    class_names: tuple[str, ...]
    wanted: Wanted

    def read(self, counts: Counter[str]) -> Iterator[Pictures]:
        """The pictures in order, in batches.

        Raises:
            ValueError: the table is broken, or a row has no picture or a broken one, one of another size or mode, or a
                label that is out of range.
        """
        rows = self.extent.rows([self.image] if self.label is None else [self.image, self.label])
        alike = Alike(self.wanted, counts)
        counts.update(files=self.extent.files)
        while batch := list(islice(rows, BATCH)):
            counts["rows"] += len(batch)
            images = alike.stacked((name, _content(values[self.image], name, self.image)) for name, values in batch)
            yield Pictures(images, None, 255, self._labels(batch), self.class_names)

    def _labels(self, rows: Sequence[tuple[str, Mapping[str, Any]]]) -> NDArray[np.int64] | None:
        if self.label is None:
            return None
        labels = [_label(values[self.label], name, self.label, self.class_names) for name, values in rows]
        return np.array(labels, np.int64)


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
    for table in table_parts(path, pattern, columns, "image_table"):
        names = features(table.found.file).get(label or "", {}).get("names", ())
        found.append(PictureRows(table, image, label, tuple(names), Wanted(mode, resize)))
    return found


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
