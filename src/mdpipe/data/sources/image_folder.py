"""Picture files of the user's own: 8 bits a channel, grey or RGB, all of one size."""

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mdpipe.data.raw import Pictures
from mdpipe.data.sources.files import matching_files

MODES = ("L", "RGB")


def read(path: Path, pattern: str, labels: Literal["folder"] | None = None) -> Pictures:
    """uint8 (N, H, W, C) in the order of the files' names; each file is a group of its own.

    Args:
        path: the folder, or a single picture.
        pattern: a glob of the files that count.
        labels: "folder" for the name of the sub-folder of `path` that a picture lies in, however deep, or None for
            pictures without labels. Classes are numbered in the order of these names.

    Raises:
        ValueError: no file fits, one cannot be read or is neither 8-bit grey nor RGB, two differ in size or mode, or
            one that needs a label lies in no sub-folder.
    """
    names, files = zip(*matching_files(path, pattern), strict=True)
    class_of = [] if labels is None else [_sub_folder(path, name) for name in names]
    first = _pixels(files[0])
    images = np.empty((len(files), *first.shape), dtype=np.uint8)
    for index, file in enumerate(files):
        pixels = _pixels(file)
        if pixels.shape != first.shape:
            raise ValueError(
                f"{file} is {_described(pixels)} but {files[0]} is {_described(first)}; all pictures of a source must"
                " have one size and one mode: convert them, or narrow the source's `pattern` in params.yaml"
            )
        images[index] = pixels
    groups = np.arange(len(images), dtype=np.int32)
    if labels is None:
        return Pictures(images, groups, maximum=255)
    classes, numbers = np.unique(class_of, return_inverse=True)
    return Pictures(images, groups, 255, labels=numbers.astype(np.int64), class_names=tuple(classes.tolist()))


def _sub_folder(path: Path, name: str) -> str:
    folder, slash, _ = name.partition("/")
    if not slash:
        raise ValueError(
            f"{name} in {path} lies in no sub-folder that could be its label; move it into one, narrow the source's"
            " `pattern` in params.yaml to '*/*', or set its `labels` to null"
        )
    return folder


def _pixels(file: Path) -> NDArray[np.uint8]:
    """(H, W, C)."""
    try:
        with Image.open(file) as image:
            image.load()
            mode = image.mode
            pixels = np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{file} is truncated or no picture ({error}); replace or remove it") from None
    if mode not in MODES:
        raise ValueError(
            f"{file} has the mode {mode}, neither 8-bit grey (L) nor RGB; convert it, for example with Pillow's"
            " `Image.open(file).convert('RGB')`"
        )
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _described(pixels: NDArray[np.uint8]) -> str:
    height, width, channels = pixels.shape
    return f"{width} x {height} {'grey' if channels == 1 else 'RGB'}"
