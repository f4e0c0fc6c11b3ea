"""The digits and photographs that come with scikit-learn."""

from pathlib import Path

import numpy as np
import pytest

from mdpipe.data.sources import digits, photos
from tests.data.sources.reading import pictures_of


def test_digits_are_small_grey_and_all_apart():
    pictures = digits.read()
    assert pictures.images.shape == (1797, 8, 8, 1)
    assert pictures.images.dtype == np.uint8
    assert (pictures.images.min(), pictures.images.max(), pictures.maximum) == (0, 16, 16)
    assert len(np.unique(pictures.groups)) == 1797
    assert (pictures.labels.dtype, pictures.classes) == (np.int64, 10)
    assert pictures.labels[:10].tolist() == list(range(10))


@pytest.mark.parametrize(("region", "squares"), [(64, 6 * 10), (100, 4 * 6), (427, 1)])
def test_photos_are_cut_into_disjoint_squares(region, squares):
    pictures = photos.read(region)
    assert pictures.images.shape == (2 * squares, region, region, 3)
    assert pictures.maximum == 255
    assert len(np.unique(pictures.groups)) == 2 * squares


def test_the_squares_of_a_photo_put_together_are_the_photo():
    from sklearn.datasets import load_sample_image

    squares = photos.read(64).images[:60].reshape(6, 10, 64, 64, 3)
    together = squares.transpose(0, 2, 1, 3, 4).reshape(384, 640, 3)
    assert np.array_equal(together, load_sample_image("china.jpg")[:384])


@pytest.mark.parametrize(
    ("kind", "read", "settings"), [("digits", digits.read, {}), ("photos", photos.read, {"region": 32})]
)
def test_the_batches_of_a_bundled_source_are_all_its_pictures(kind, read, settings):
    whole, batches = read(**settings), pictures_of(kind, Path(), **settings)
    assert np.array_equal(batches.images, whole.images)
    assert np.array_equal(batches.groups, whole.groups)
    assert np.array_equal(batches.labels, whole.labels)
    assert (batches.maximum, batches.class_names) == (whole.maximum, whole.class_names)
