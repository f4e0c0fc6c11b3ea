"""The two colour photographs that come with scikit-learn, cut into disjoint squares."""

import numpy as np
from sklearn.datasets import load_sample_images

from mdpipe.data.pixels import tile
from mdpipe.data.raw.material import Pictures
from mdpipe.data.sources.whole import Whole


def parts(region: int) -> list[Whole]:
    """All pictures at once."""
    return [Whole(read, {"region": region})]


def read(region: int) -> Pictures:
    """All region x region squares, side by side: uint8 (N, region, region, 3); each square is a group of its own.

    Edge strips that do not fill a square are dropped: at region 64 each photograph of 427 x 640 gives 6 x 10 squares.

    Raises:
        ValueError: a region is larger than the photographs.
    """
    images = tile(np.stack(load_sample_images().images), region, stride=region)
    return Pictures(images, np.arange(len(images), dtype=np.int32), maximum=255)
