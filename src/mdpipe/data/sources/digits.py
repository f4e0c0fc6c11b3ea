"""The 1,797 handwritten digits that come with scikit-learn: 8 x 8 pixels, 17 grey levels, ten classes."""

import numpy as np
from sklearn.datasets import load_digits

from mdpipe.data.raw.material import Pictures
from mdpipe.data.sources.whole import Whole


def parts() -> list[Whole]:
    """All pictures at once."""
    return [Whole(read, {})]


def read() -> Pictures:
    """uint8 (1797, 8, 8, 1) with values 0 to 16, labelled 0 to 9; each digit is a group of its own."""
    digits = load_digits()
    images = digits.images.astype(np.uint8)[..., None]
    groups = np.arange(len(images), dtype=np.int32)
    return Pictures(images, groups, maximum=16, labels=digits.target.astype(np.int64))
