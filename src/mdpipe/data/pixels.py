"""Pixels as tokens: pixel values quantized to a number of levels, and images cut into square tiles."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray


def quantize(images: NDArray[np.uint8], maximum: int, levels: int) -> NDArray[np.uint8]:
    """Return floor(value * levels / (maximum + 1)): equal bins over 0..maximum; the identity if levels = maximum + 1.

    Shapes: any, kept.

    Raises:
        ValueError: More levels than there are pixel values, fewer than two, or a pixel above the maximum.
    """
    if not 2 <= levels <= maximum + 1:
        raise ValueError(f"tokenizer.levels = {levels} must be between 2 and the {maximum + 1} values of these pixels")
    if images.size and images.max() > maximum:
        raise ValueError(f"a pixel has the value {images.max()}, above the source's maximum of {maximum}")
    table = (np.arange(maximum + 1) * levels // (maximum + 1)).astype(np.uint8)
    return np.take(table, images)


def dequantize(ids: NDArray[np.integer], levels: int) -> NDArray[np.uint8]:
    """Return ceil(id * 255 / (levels - 1)): gray values for display, from black to white.

    Rounded up, every level is in its own bin of 0..255, so that `quantize` inverts this.

    Shapes: any, kept.

    Raises:
        ValueError: An id is not a level.
    """
    if ids.size and not 0 <= ids.min() <= ids.max() < levels:
        raise ValueError(f"ids from {ids.min()} to {ids.max()} are not among {levels} levels")
    table = -(-np.arange(levels) * 255 // (levels - 1))
    return np.take(table.astype(np.uint8), ids)


def to_images(ids: NDArray[np.integer], levels: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return tokens as images for display.

    Shapes: ids (..., H * W * C), shape (H, W, C); result (..., H, W, C).

    Raises:
        ValueError: An id is not a level.
    """
    return dequantize(ids, levels).reshape(*ids.shape[:-1], *shape)


def tile(images: NDArray[np.uint8], size: int, stride: int) -> NDArray[np.uint8]:
    """Return all size x size tiles whose corners are `stride` apart, image by image, row by row.

    Edge strips that do not fill a square are dropped.

    Shapes: images (N, H, W, C); result (N * rows * columns, size, size, C) with rows = (H - size) // stride + 1.

    Raises:
        ValueError: A tile is larger than the images, or the size or the stride is not positive.
    """
    _, height, width, channels = images.shape
    if size < 1 or stride < 1:
        raise ValueError(f"size = {size} and stride = {stride} of a dataset's tiles must be positive")
    if size > min(height, width):
        raise ValueError(
            f"tiles of {size} x {size} pixels do not fit images of {height} x {width}; lower `image_size` in"
            " params.yaml"
        )
    windows = sliding_window_view(images, (size, size), axis=(1, 2))[:, ::stride, ::stride]
    return windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, size, size, channels)
