"""Pictures of the user's own in a NumPy file: uint8 of shape (N, H, W) or (N, H, W, C), and labels if there are any."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdpipe.data.artifacts.arrays import open_array
from mdpipe.data.raw.material import Pictures
from mdpipe.data.sources.npz_rows import BROKEN, check_array
from mdpipe.data.sources.whole import Whole
from mdpipe.messages import reason


def parts(path: Path, field: str, labels: str | None) -> list[Whole]:
    """All pictures at once."""
    return [Whole(read, {"path": path, "field": field, "labels": labels}, files=1)]


def read(path: Path, field: str, labels: str | None = None) -> Pictures:
    """uint8 (N, H, W, C).

    Args:
        path: an .npz file, or an .npy file of pictures alone.
        field: the name of the pictures' array in an .npz file.
        labels: the name of the labels' array, integers (N,) from 0 on, or None for pictures without labels.

    Raises:
        ValueError: the file is missing or broken, has no such array, or an array has another type or shape.
    """
    if not path.is_file():
        raise ValueError(f"{path} is no file; correct the source's `path` in params.yaml")
    if path.suffix == ".npy":
        images, name = _from_npy(path), str(path)
    else:
        images, name = _from_npz(path, field, "field"), f"{path}[{field!r}]"
    if images.dtype != np.uint8:
        raise ValueError(f"{name} is {images.dtype}, not uint8; save pixel values 0 to 255 with .astype('uint8')")
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or not images.size:
        raise ValueError(
            f"{name} has the shape {images.shape}; pictures must be (N, H, W) or (N, H, W, C) with C 1 or 3, and not"
            " none: reshape or transpose them"
        )
    return Pictures(images, None, maximum=255, labels=None if labels is None else _labels(path, labels, len(images)))


def _labels(path: Path, field: str, count: int) -> NDArray[np.int64]:
    if path.suffix == ".npy":
        raise ValueError(
            f"{path} has no room for labels = {field!r} beside its one array; save pictures and labels together with"
            " numpy.savez_compressed, or set the source's `labels` in params.yaml to null"
        )
    found, name = _from_npz(path, field, "labels"), f"{path}[{field!r}]"
    if not np.issubdtype(found.dtype, np.integer):
        raise ValueError(f"{name} is {found.dtype}; labels must be integers: number the classes 0, 1, 2 and so on")
    if found.shape != (count,):
        raise ValueError(
            f"{name} has the shape {found.shape}; there must be one label for each of the {count} pictures, ({count},)"
        )
    labels = found.astype(np.int64)
    if labels.min() < 0:
        raise ValueError(f"{name} has the label {labels.min()}; labels must not be negative: number the classes from 0")
    return labels


def _from_npz(path: Path, field: str, key: str) -> NDArray[Any]:
    cure = "save it again with numpy.savez_compressed"
    try:
        with zipfile.ZipFile(path) as archive:
            check_array(archive, path, field, f"`{key}`")
    except BROKEN as error:
        raise ValueError(f"{path} is empty, truncated, pickled or no .npz file ({reason(error)}); {cure}") from None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            array: NDArray[Any] = arrays[field]
    except (ValueError, *BROKEN) as error:
        raise ValueError(f"{path} is empty, truncated, pickled or no .npz file ({reason(error)}); {cure}") from None
    return array


def _from_npy(path: Path) -> NDArray[Any]:
    cure = "save it again with numpy.save"
    try:
        return open_array(path, cure)
    except (OverflowError, TypeError) as error:  # of a shape that is none
        raise ValueError(f"{path} has a broken header ({reason(error)}); {cure}") from None
