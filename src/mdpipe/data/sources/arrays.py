"""Pictures of the user's own in a NumPy file: uint8 of shape (N, H, W) or (N, H, W, C)."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdpipe.data.arrays import open_array
from mdpipe.data.raw import Pictures


def read(path: Path, field: str) -> Pictures:
    """uint8 (N, H, W, C); each picture is a group of its own.

    Raises:
        ValueError: the file is missing or broken, has no such field, or its array has another type or shape.
    """
    if not path.is_file():
        raise ValueError(f"{path} is no file; correct the source's `path` in params.yaml")
    if path.suffix == ".npy":
        images, name = open_array(path, "save it again with numpy.save"), str(path)
    else:
        images, name = _from_npz(path, field), f"{path}[{field!r}]"
    if images.dtype != np.uint8:
        raise ValueError(f"{name} is {images.dtype}, not uint8; save pixel values 0 to 255 with .astype('uint8')")
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or not images.size:
        raise ValueError(
            f"{name} has the shape {images.shape}; pictures must be (N, H, W) or (N, H, W, C) with C 1 or 3, and not"
            " none: reshape or transpose them"
        )
    return Pictures(images, np.arange(len(images), dtype=np.int32), maximum=255)


def _from_npz(path: Path, field: str) -> NDArray[Any]:
    cure = "save it again with numpy.savez_compressed"
    try:
        with np.load(path, allow_pickle=False) as archive:
            if field not in archive.files:
                names = ", ".join(archive.files) or "none"
                raise KeyError(
                    f"{path} has no array {field!r}, only {names}; correct the source's `field` in params.yaml"
                )
            array: NDArray[Any] = archive[field]
    except KeyError as error:
        raise ValueError(error.args[0]) from None
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        raise ValueError(f"{path} is empty, truncated, pickled or no .npz file ({error}); {cure}") from None
    return array
