"""The digits and photographs that come with scikit-learn."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mdpipe.data.sources import bundled
from mdpipe.data.sources.bundled import load_digits, load_photos
from tests.data.sources.source_contents import images_of


def test_digits_are_small_gray_and_all_apart():
    images = load_digits()
    assert images.images.shape == (1797, 8, 8, 1)
    assert images.images.dtype == np.uint8
    assert (images.images.min(), images.images.max(), images.maximum) == (0, 16, 16)
    assert len(np.unique(images.groups)) == 1797
    assert (images.labels.dtype, images.classes) == (np.int64, 10)
    assert images.labels[:10].tolist() == list(range(10))


@pytest.mark.parametrize(("region", "squares"), [(64, 6 * 10), (100, 4 * 6), (427, 1)])
def test_photos_are_cut_into_disjoint_squares(region, squares):
    images = load_photos(region)
    assert images.images.shape == (2 * squares, region, region, 3)
    assert images.maximum == 255
    assert len(np.unique(images.groups)) == 2 * squares


def test_the_squares_of_a_photo_put_together_are_the_photo():
    from sklearn.datasets import load_sample_image

    squares = load_photos(64).images[:60].reshape(6, 10, 64, 64, 3)
    together = squares.transpose(0, 2, 1, 3, 4).reshape(384, 640, 3)
    assert np.array_equal(together, load_sample_image("china.jpg")[:384])


@pytest.mark.parametrize(
    ("kind", "read", "settings"), [("digits", load_digits, {}), ("photos", load_photos, {"region": 32})]
)
def test_the_batches_of_a_bundled_source_are_all_its_images(kind, read, settings):
    whole, batches = read(**settings), images_of(kind, Path(), **settings)
    assert np.array_equal(batches.images, whole.images)
    assert np.array_equal(batches.groups, whole.groups)
    assert np.array_equal(batches.labels, whole.labels)
    assert (batches.maximum, batches.class_names) == (whole.maximum, whole.class_names)


def test_images_are_those_that_scikit_learn_loads():
    from sklearn.datasets import load_digits as expected_digits
    from sklearn.datasets import load_sample_images

    digits = load_digits()
    assert np.array_equal(digits.images[..., 0], expected_digits().images)
    assert np.array_equal(digits.labels, expected_digits().target)
    photos = np.stack(load_sample_images().images)
    assert np.array_equal(load_photos(427).images, photos[:, :427, :427])


@pytest.mark.parametrize(
    ("locations", "problem"),
    [(None, "scikit-learn is not installed: `pip install"), (["nowhere"], "scikit-learn has no datasets/data/digits")],
)
def test_missing_scikit_learn_or_file_is_named(monkeypatch, locations, problem):
    spec = None if locations is None else SimpleNamespace(submodule_search_locations=locations)
    monkeypatch.setattr(bundled, "find_spec", lambda name: spec)
    with pytest.raises(ValueError, match=problem):
        load_digits()
