"""Pictures in .npz files, one a flat row and channel by channel, as the down-sampled ImageNet comes.

Of a picture (H, W, C) the row has first all of the first channel, from left to right and from top to bottom, and then
the others: (C * H * W,).
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdpipe.data.raw.material import Pictures
from mdpipe.data.sources.extents import PartOf
from mdpipe.data.sources.files import Found, matching_files
from mdpipe.data.sources.npz_rows import Rows, opened_arrays

BATCH_BYTES = 4 * 2**20
"""Of the pictures that travel together: a file may have many times more than there is memory."""


@dataclass(frozen=True)
class Labels:
    """Where the classes of pictures are, and how they are numbered."""

    field: str
    """The array's name: integers (N,)."""
    first: int
    """The number of the first class."""
    classes: int

    def batches(self, rows: Rows, count: int) -> Iterator[NDArray[np.int64]]:
        """All labels in order, so many at a time, from 0 on: (count,).

        Raises:
            ValueError: one is out of range.
        """
        for found in rows.batches(count):
            wrong = (found < self.first) | (found >= self.first + self.classes)
            if wrong.any():
                raise ValueError(
                    f"{rows.name} has the label {found[wrong][0]}, but the source's `labels` in params.yaml say that"
                    f" they go from {self.first} to {self.first + self.classes - 1}"
                )
            yield found.astype(np.int64) - self.first


@dataclass(frozen=True)
class PlanarFile(PartOf[Found]):
    """The pictures of one file."""

    field: str
    shape: tuple[int, int, int]
    """(C, H, W)."""
    labels: Labels | None

    def read(self, counts: Counter[str]) -> Iterator[Pictures]:
        """The pictures in order, in batches.

        Raises:
            ValueError: the file is broken, or an array is missing, of another type or shape, or has a wrong label.
        """
        fields = [self.field] if self.labels is None else [self.field, self.labels.field]
        counts["files"] += 1
        with opened_arrays(self.extent.file, fields) as [pixels, *classes]:
            self._check_pixels(pixels)
            count = max(1, BATCH_BYTES // math.prod(self.shape))
            labels: Iterator[NDArray[np.int64] | None] = repeat(None)
            if self.labels is not None:
                _check_labels(classes[0], pixels.shape[0])
                labels = self.labels.batches(classes[0], count)
            for rows, numbers in zip(pixels.batches(count), labels, strict=False):
                images = rows.reshape(-1, *self.shape).transpose(0, 2, 3, 1)
                stated = 0 if self.labels is None else self.labels.classes
                yield Pictures(np.ascontiguousarray(images), None, 255, numbers, stated_classes=stated)

    def _check_pixels(self, pixels: Rows) -> None:
        if pixels.dtype != np.uint8:
            raise ValueError(f"{pixels.name} is {pixels.dtype}, not uint8; pixel values go from 0 to 255")
        if pixels.shape[1:] != (math.prod(self.shape),) or pixels.shape[0] < 1:
            raise ValueError(
                f"{pixels.name} has the shape {pixels.shape}; by the source's `shape` in params.yaml it must be"
                f" (N, {' * '.join(map(str, self.shape))}), and not without rows"
            )


def parts(
    path: Path, pattern: str | Mapping[str, str], field: str, shape: tuple[int, int, int], labels: dict[str, Any] | None
) -> list[PlanarFile]:
    """One a file.

    Args:
        path: an .npz file, or the folder that they are in.
        pattern: a glob of the files that count, or one for each of the source's own splits.
        field: the name of the pictures' array: uint8 (N, C * H * W).
        shape: (C, H, W) of a picture.
        labels: the fields of `Labels`, or None for pictures without.

    Raises:
        ValueError: no file fits.
    """
    numbering = None if labels is None else Labels(**labels)
    return [PlanarFile(found, field, shape, numbering) for found in matching_files(path, pattern)]


def _check_labels(labels: Rows, count: int) -> None:
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"{labels.name} is {labels.dtype}; labels must be integers")
    if labels.shape != (count,):
        raise ValueError(f"{labels.name} has the shape {labels.shape}, but there are {count:,} pictures")
