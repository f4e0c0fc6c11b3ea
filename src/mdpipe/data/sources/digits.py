"""The 1,797 handwritten digits that come with scikit-learn: 8 x 8 pixels, 17 grey levels."""

import numpy as np
from sklearn.datasets import load_digits

from mdpipe.data.raw import Pictures


def read() -> Pictures:
    """uint8 (1797, 8, 8, 1) with values 0 to 16; each digit is a group of its own."""
    images = load_digits().images.astype(np.uint8)[..., None]
    return Pictures(images, np.arange(len(images), dtype=np.int32), maximum=16)
