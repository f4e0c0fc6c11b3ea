"""The digits and photographs that come with scikit-learn."""

import numpy as np
import pytest

from mdpipe.data.sources import read_source


def test_digits_are_small_grey_and_all_apart():
    pictures = read_source("digits", None)
    assert pictures.images.shape == (1797, 8, 8, 1)
    assert pictures.images.dtype == np.uint8
    assert (pictures.images.min(), pictures.images.max(), pictures.maximum) == (0, 16, 16)
    assert len(np.unique(pictures.groups)) == 1797
    assert (pictures.labels.dtype, pictures.classes) == (np.int64, 10)
    assert pictures.labels[:10].tolist() == list(range(10))


@pytest.mark.parametrize(("region", "squares"), [(64, 6 * 10), (100, 4 * 6), (427, 1)])
def test_photos_are_cut_into_disjoint_squares(region, squares):
    pictures = read_source("photos", None, region=region)
    assert pictures.images.shape == (2 * squares, region, region, 3)
    assert pictures.maximum == 255
    assert len(np.unique(pictures.groups)) == 2 * squares


def test_the_squares_of_a_photo_put_together_are_the_photo():
    from sklearn.datasets import load_sample_image

    squares = read_source("photos", None, region=64).images[:60].reshape(6, 10, 64, 64, 3)
    together = squares.transpose(0, 2, 1, 3, 4).reshape(384, 640, 3)
    assert np.array_equal(together, load_sample_image("china.jpg")[:384])
