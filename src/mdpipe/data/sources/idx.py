"""Pictures in the IDX format of MNIST and its kin, packed or not: a magic number, the sizes, the bytes."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from mdpipe.data.raw.material import Pictures
from mdpipe.data.sources.files import opened

UNSIGNED_BYTES = b"\x00\x00\x08"
"""How a file of uint8 begins; the next byte is the number of dimensions, each a big-endian uint32."""
BATCH = 256
"""Pictures that travel together."""
BLOCK = 2**20
"""Bytes that are read at a time."""


@dataclass(frozen=True)
class IdxFiles:
    """The pictures of one split, and their labels if there are any."""

    split: str | None
    images: Path
    labels: Path | None

    @property
    def size(self) -> int:
        """Bytes."""
        return self.images.stat().st_size

    def read(self, counts: Counter[str]) -> Iterator[Pictures]:
        """The pictures in order, in batches.

        Raises:
            ValueError: a file is truncated or something else, or there is not one label for each picture.
        """
        counts["files"] += 1 if self.labels is None else 2
        with opened(self.images) as stream:
            shape = _shape(stream, self.images)
            if len(shape) != 3 or not math.prod(shape):
                raise ValueError(f"{self.images} has the shape {shape}; pictures are (N, H, W), and not none")
            labels = None if self.labels is None else self._labels(self.labels, shape[0])
            for start in range(0, shape[0], BATCH):
                count = min(BATCH, shape[0] - start)
                images = _content(stream, self.images, (count, *shape[1:]))
                chosen = None if labels is None else labels[start : start + count]
                yield Pictures(images[..., None], None, 255, chosen)
            _check_end(stream, self.images)

    def _labels(self, path: Path, count: int) -> NDArray[np.int64]:
        with opened(path) as stream:
            shape = _shape(stream, path)
            if shape != (count,):
                raise ValueError(f"{path} has the shape {shape}, but there are {count:,} pictures")
            labels = _content(stream, path, shape).astype(np.int64)
            _check_end(stream, path)
        return labels


def parts(path: Path, images: str | Mapping[str, str], labels: str | Mapping[str, str] | None) -> list[IdxFiles]:
    """One a split.

    Args:
        path: the folder that the files are in.
        images: the file of pictures, or one for each of the source's own splits.
        labels: the same for labels, or None.

    Raises:
        ValueError: pictures and labels are not given for the same splits, or a file is missing.
    """
    image_files = _by_split(images)
    label_files = _by_split(labels or {})
    if labels is not None and set(label_files) != set(image_files):
        raise ValueError("the source's `images` and `labels` in params.yaml must name the same splits")
    for name in [*image_files.values(), *label_files.values()]:
        if not (path / name).is_file():
            raise ValueError(f"{path / name} does not exist; correct the source's `path`, `images` or `labels`")
    return [
        IdxFiles(split, path / name, path / label_files[split] if labels is not None else None)
        for split, name in sorted(image_files.items(), key=lambda item: item[0] or "")
    ]


def _by_split(files: str | Mapping[str, str]) -> dict[str | None, str]:
    return {None: files} if isinstance(files, str) else dict(files.items())


def _shape(stream: IO[bytes], path: Path) -> tuple[int, ...]:
    head = stream.read(4)
    if head[:3] != UNSIGNED_BYTES or len(head) < 4 or not head[3]:
        raise ValueError(f"{path} is no IDX file of unsigned bytes: it begins with {head.hex(' ') or 'nothing'}")
    sizes = stream.read(4 * head[3])
    if len(sizes) != 4 * head[3]:
        raise ValueError(f"{path} is truncated: its header ends within the sizes; replace it")
    return tuple(int(size) for size in np.frombuffer(sizes, dtype=">u4"))


def _content(stream: IO[bytes], path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    promised, content = math.prod(shape), bytearray()
    # Block by block, because a header of a few bytes can promise more than there is memory.
    while block := stream.read(min(promised - len(content), BLOCK)):
        content += block
    if len(content) != promised:
        raise ValueError(f"{path} is truncated: it ends before what its header promises; replace it")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


def _check_end(stream: IO[bytes], path: Path) -> None:
    if stream.read(1):
        raise ValueError(f"{path} is longer than its header says; replace it")
