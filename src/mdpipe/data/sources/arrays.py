"""Images in array files: NumPy's .npy and .npz, flat rows of the down-sampled ImageNet, and MNIST's IDX.

Flat rows and IDX are decompressed while they are read, so a file may be larger than the memory.

Shapes: N images, H height, W width, C channels.
"""

import math
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from mdpipe.data.artifacts.arrays import open_array
from mdpipe.data.raw import IMAGES_PER_BATCH, ImageBatch
from mdpipe.data.sources.files import (
    BROKEN_ZIP,
    BUFFER_BYTES,
    SourceFile,
    check_columns,
    check_files,
    open_decompressed,
    refuse_bomb,
    refuse_concatenated,
)
from mdpipe.data.sources.writer import SourceShard
from mdpipe.messages import reason
from mdpipe.params.sources import MnistIdxSource, NpySource, NpzFlatSource, NpzLabels, files_by_split

BATCH_BYTES = 4 * 2**20
"""Size of the flat rows that are in memory together."""
UNSIGNED_BYTES = b"\x00\x00\x08"
"""First bytes of an IDX file of uint8; the next byte is the number of dimensions, each a big-endian uint32."""


def open_arrays(source: NpySource | NpzFlatSource | MnistIdxSource) -> list[SourceShard]:
    """Return one shard per file, or for IDX per split."""
    path = Path(source.path)
    if isinstance(source, NpySource):
        check_head(source, SourceFile(path.name, path, None))
        return [SourceShard(None, 0, partial(_read_npy, source))]
    if isinstance(source, NpzFlatSource):
        files = check_files(source, check_head)
        return [SourceShard(file.split, file.size, partial(_read_npz_flat, source, file)) for file in files]
    images = {split: path / name for split, name in files_by_split(source.images).items()}
    labels = {split: path / name for split, name in files_by_split(source.labels or {}).items()}
    for file in [*images.values(), *labels.values()]:
        if not file.is_file():
            raise ValueError(f"{file} does not exist; correct the source's `path`, `images` or `labels`")
    return [
        SourceShard(split, file.stat().st_size, partial(_read_idx, file, labels.get(split)))
        for split, file in sorted(images.items(), key=lambda item: item[0] or "")
    ]


def check_head(source: NpySource | NpzFlatSource, file: SourceFile) -> None:
    """Check the names and headers of the arrays of a file; an .npy file has only one array, without a name."""
    path = file.path
    if not path.is_file():
        raise ValueError(f"{path} is not a file; correct the source's `path` in params.yaml")
    if isinstance(source, NpzFlatSource) or path.suffix != ".npy":
        with _open_npz(source, path):
            pass
    elif source.labels is not None:
        raise ValueError(
            f"{path} has one array and no labels = {source.labels!r}; save images and labels together with"
            " numpy.savez_compressed, or set the source's `labels` in params.yaml to null"
        )


def _read_npy(source: NpySource, counts: Counter[str]) -> Iterator[ImageBatch]:
    """Yield the images of an .npz file with labels, or of an .npy file."""
    path = Path(source.path)
    counts["files"] += 1
    labels = None
    if path.suffix == ".npy":
        hint = "save it again with numpy.save"
        try:
            images = open_array(path, hint)
        except (OverflowError, TypeError) as error:  # of an impossible shape
            raise ValueError(f"{path} has a broken header ({reason(error)}); {hint}") from None
        _check_images(images.dtype, images.shape, str(path))
    else:
        with _open_npz(source, path) as found:
            pixels = found[source.field]
            _check_images(pixels.dtype, pixels.shape, pixels.name)
            images = pixels.read()
            if source.labels is not None:
                classes = found[source.labels]
                _check_labels(classes, len(images))
                labels = classes.read().astype(np.int64)
                if labels.min() < 0:
                    raise ValueError(
                        f"{classes.name} has the label {labels.min()}; labels must not be negative: number the classes"
                        " from 0"
                    )
    images = images[..., None] if images.ndim == 3 else images
    yield from ImageBatch(images, None, maximum=255, labels=labels).batches()


def _check_images(dtype: np.dtype[Any], shape: tuple[int, ...], name: str) -> None:
    _check_uint8(dtype, name)
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[-1] not in (1, 3)) or not math.prod(shape):
        raise ValueError(
            f"{name} has the shape {shape}; images must be (N, H, W) or (N, H, W, C) with C 1 or 3, and N at least 1:"
            " reshape or transpose them"
        )


def _check_uint8(dtype: np.dtype[Any], name: str) -> None:
    if dtype != np.uint8:
        raise ValueError(f"{name} is {dtype}, not uint8; save pixel values 0 to 255 with .astype('uint8')")


def _check_labels(labels: "_Rows", count: int) -> None:
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"{labels.name} is {labels.dtype}; labels must be integers: number the classes from 0")
    if labels.shape != (count,):
        raise ValueError(
            f"{labels.name} has the shape {labels.shape}; there must be one label for each of the {count:,} images,"
            f" ({count},)"
        )


def _read_npz_flat(source: NpzFlatSource, file: SourceFile, counts: Counter[str]) -> Iterator[ImageBatch]:
    """Yield the images of one file: a row (C * H * W,) has one channel after the other, each from top left."""
    counts["files"] += 1
    with _open_npz(source, file.path) as found:
        pixels = found[source.field]
        _check_uint8(pixels.dtype, pixels.name)
        if any(array.is_fortran for array in found.values()):
            raise ValueError(f"{pixels.name} is in Fortran order; save it again from numpy.ascontiguousarray(...)")
        if pixels.shape[1:] != (math.prod(source.shape),) or pixels.shape[0] < 1:
            raise ValueError(
                f"{pixels.name} has the shape {pixels.shape}; by the source's `shape` in params.yaml it must be"
                f" (N, {' * '.join(map(str, source.shape))}), with N at least 1"
            )
        count = max(1, BATCH_BYTES // math.prod(source.shape))
        labels: Iterator[NDArray[np.int64] | None] = repeat(None)
        if source.labels is not None:
            _check_labels(found[source.labels.field], pixels.shape[0])
            labels = _numbered_from_0(found[source.labels.field], source.labels, count)
        stated = 0 if source.labels is None else source.labels.num_classes
        for rows, numbers in zip(pixels.batches(count), labels, strict=False):
            images = rows.reshape(-1, *source.shape).transpose(0, 2, 3, 1)
            yield ImageBatch(np.ascontiguousarray(images), None, 255, numbers, stated_classes=stated)


def _numbered_from_0(labels: "_Rows", settings: NpzLabels, count: int) -> Iterator[NDArray[np.int64]]:
    last = settings.first + settings.num_classes - 1
    for found in labels.batches(count):
        wrong = (found < settings.first) | (found > last)
        if wrong.any():
            raise ValueError(
                f"{labels.name} has the label {found[wrong][0]}, but the source's `labels` in params.yaml say that"
                f" they go from {settings.first} to {last}"
            )
        yield found.astype(np.int64) - settings.first


@dataclass(frozen=True)
class _Rows:
    """An array of a file that is read once, from its beginning."""

    name: str
    """Names of the file and of the array in it, for messages."""
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    is_fortran: bool
    stream: IO[bytes]

    def read(self) -> NDArray[Any]:
        """Return the whole array."""
        return self._next(math.prod(self.shape)).reshape(self.shape, order="F" if self.is_fortran else "C")

    def batches(self, count: int) -> Iterator[NDArray[Any]]:
        """Yield all rows in order, `count` at a time; the last batch may have fewer."""
        for start in range(0, self.shape[0], count):
            shape = (min(count, self.shape[0] - start), *self.shape[1:])
            yield self._next(math.prod(shape)).reshape(shape)

    def _next(self, count: int) -> NDArray[Any]:
        """Read values block by block, because a header of a few bytes can promise more than there is memory."""
        promised, content = count * self.dtype.itemsize, bytearray()
        while block := self.stream.read(min(promised - len(content), BUFFER_BYTES)):
            content += block
        if len(content) != promised:
            raise ValueError(f"{self.name} is truncated: it ends before what its header promises; replace it")
        return np.frombuffer(content, self.dtype)


@contextmanager
def _open_npz(source: NpySource | NpzFlatSource, path: Path) -> Iterator[dict[str, _Rows]]:
    """Open the arrays of an .npz file that the source reads, to read them in parallel."""
    try:
        with zipfile.ZipFile(path) as archive, ExitStack() as streams:
            check_columns(source, str(path), [name.removesuffix(".npy") for name in archive.namelist()], "array")
            refuse_concatenated(archive, path)
            found = {}
            for field in source.named_columns:
                name, entry = f"{path}[{field!r}]", archive.getinfo(f"{field}.npy")
                stream = streams.enter_context(archive.open(entry))
                found[field] = _Rows(name, *_read_header(name, stream), stream)
                _check_size(found[field], entry)
            yield found
    except BROKEN_ZIP as error:
        raise ValueError(
            f"{path} is truncated, damaged or not a .npz file ({reason(error)}); replace it, or save it again with"
            " numpy.savez_compressed"
        ) from None


def _check_size(array: _Rows, entry: zipfile.ZipInfo) -> None:
    """Check that an array is as large as its header says, before it is read."""
    content = entry.file_size - array.stream.tell()
    if content != array.dtype.itemsize * math.prod(array.shape) and not array.dtype.hasobject:
        raise ValueError(
            f"{array.name} has {content:,} bytes and is {array.dtype} of shape {array.shape} by its header; replace the"
            " file, which is truncated or damaged"
        )
    refuse_bomb(entry, f"{array.name} unpacks", "save it again with numpy.savez if you trust it")


def _read_header(name: str, stream: IO[bytes]) -> tuple[np.dtype[Any], tuple[int, ...], bool]:
    """Return dtype and shape of an .npy stream, and whether it is in Fortran order."""
    try:
        version = np.lib.format.read_magic(stream)
        # Later versions are only for structured arrays.
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, in_fortran_order, dtype = read(stream)
        if any(isinstance(size, bool) or size < 0 for size in shape):
            raise ValueError(f"shape is not valid: {shape}")
    except ValueError as error:
        raise ValueError(f"{name} has a broken header ({reason(error)}); replace the file") from None
    return dtype, shape, in_fortran_order


def _read_idx(images: Path, labels: Path | None, counts: Counter[str]) -> Iterator[ImageBatch]:
    counts["files"] += 1 if labels is None else 2
    with _open_idx(images) as pixels:
        if len(pixels.shape) != 3 or not math.prod(pixels.shape):
            raise ValueError(f"{images} has the shape {pixels.shape}; images are (N, H, W), with N at least 1")
        numbers = None
        if labels is not None:
            with _open_idx(labels) as classes:
                _check_labels(classes, pixels.shape[0])
                numbers = classes.read().astype(np.int64)
        start = 0
        for batch in pixels.batches(IMAGES_PER_BATCH):
            end = start + len(batch)
            yield ImageBatch(batch[..., None], None, 255, None if numbers is None else numbers[start:end])
            start = end


@contextmanager
def _open_idx(path: Path) -> Iterator[_Rows]:
    """Open an IDX file to read all of it."""
    with open_decompressed(path) as stream:
        head = stream.read(4)
        if head[:3] != UNSIGNED_BYTES or len(head) < 4 or not head[3]:
            begins = head.hex(" ") or "nothing"
            raise ValueError(f"{path} is not an IDX file of unsigned bytes: it begins with {begins}")
        sizes = stream.read(4 * head[3])
        if len(sizes) != 4 * head[3]:
            raise ValueError(f"{path} is truncated: its header ends within the sizes; replace it")
        shape = tuple(int(size) for size in np.frombuffer(sizes, dtype=">u4"))
        yield _Rows(str(path), np.dtype(np.uint8), shape, False, stream)
        if stream.read(1):
            raise ValueError(f"{path} is longer than its header says; replace it")
