"""Encoded pictures to pixels: 8 bits a channel, grey or RGB; perhaps cut to a square and made smaller."""

import io
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mdpipe.data.raw.writing import ONE_SIZE

MODES = ("L", "RGB")
Mode = Literal["L", "RGB"]
DEEP = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
"""Pillow's modes of more than 8 bits a channel, which it would clip."""
MOST_PIXELS = 64 * 2**20
"""Of one picture, 8,192 x 8,192: a file of a few bytes can promise more pixels than there is memory."""
BATCH = 256
"""Pictures that travel together."""


@dataclass(frozen=True)
class Wanted:
    """What is made of a picture."""

    mode: Mode | None
    """Grey or RGB, whatever it was; None to refuse what is neither."""
    resize: int | None
    """The largest square in the middle, its edge brought to so many pixels by a box filter, as in the down-sampled
    ImageNet (Chrabaszcz et al. 2017); None for the picture as it is."""


def pixels_of(source: Path | bytes, where: str, wanted: Wanted) -> NDArray[np.uint8]:
    """(H, W, C).

    Raises:
        ValueError: it is truncated or no picture, has too many pixels, is smaller than asked for, has 16 bits a
            channel, or is neither grey nor RGB and not to be converted; the message begins with `where`.
    """
    image = _loaded(source, where, wanted.mode)
    pixels = np.asarray(image if wanted.resize is None else _squared(image, where, wanted.resize))
    return pixels[..., None] if pixels.ndim == 2 else pixels


class Alike:
    """Makes arrays of pictures that must all have the size and mode of the first."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._first: tuple[str, NDArray[np.uint8]] | None = None

    def stacked(self, pictures: Iterable[tuple[str, Path | bytes]]) -> NDArray[np.uint8]:
        """Some pictures, which have names for messages, (n, H, W, C).

        Raises:
            ValueError: `pixels_of` refuses one, or it differs from the first.
        """
        return np.stack([self._like_the_first(name, source) for name, source in pictures])

    def _like_the_first(self, name: str, source: Path | bytes) -> NDArray[np.uint8]:
        pixels = pixels_of(source, name, self._wanted)
        if self._first is None:
            self._first = name, pixels
        first_name, first = self._first
        if pixels.shape != first.shape:
            raise ValueError(f"{name} is {_described(pixels)} but {first_name} is {_described(first)}; {ONE_SIZE}")
        return pixels


def _described(pixels: NDArray[np.uint8]) -> str:
    height, width, channels = pixels.shape
    return f"{width} x {height} {'grey' if channels == 1 else 'RGB'}"


def _loaded(source: Path | bytes, where: str, wanted: Mode | None) -> Image.Image:
    try:
        with warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning):
            image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
        with image:
            if image.width * image.height > MOST_PIXELS:
                raise Image.DecompressionBombError(f"{image.width:,} x {image.height:,}")
            # Pillow makes RGB of 16 bits a channel to RGB of 8 without a word.
            deep = image.mode == "RGB" and any(";16" in str(tile.args) for tile in image.tile)
            image.load()
            if wanted is not None and not deep and image.mode not in DEEP:
                return image.convert(wanted)
    except Image.DecompressionBombError as error:
        raise ValueError(f"{where} says that it has too many pixels ({error}); replace or remove it") from None
    except (OSError, SyntaxError, ValueError, RuntimeError) as error:
        raise ValueError(f"{where} is truncated or no picture ({error}); replace or remove it") from None
    if deep or image.mode not in MODES:
        mode = "RGB;16" if deep else image.mode
        raise ValueError(
            f"{where} has the mode {mode}, neither 8-bit grey (L) nor RGB; convert it, for example with Pillow's"
            " `Image.open(file).convert('RGB')`, or set the source's `mode` in params.yaml (not for 16 bits a channel)"
        )
    return image


def _squared(image: Image.Image, where: str, size: int) -> Image.Image:
    edge = min(image.size)
    if edge < size:
        raise ValueError(
            f"{where} is {image.width} x {image.height}, too small for `resize: {size}`; remove it, or ask for less"
        )
    left, top = (image.width - edge) // 2, (image.height - edge) // 2
    return image.resize((size, size), Image.Resampling.BOX, box=(left, top, left + edge, top + edge))
