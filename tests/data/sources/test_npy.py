"""Images in NumPy files."""

import numpy as np
import pytest

from tests.data.sources.source_contents import images_of

COLOR = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)


def read(path, **settings):
    return images_of("npy", path, **settings)


@pytest.mark.parametrize("pixels", [COLOR, COLOR[..., :1], COLOR[..., 0]], ids=["color", "gray", "no channel"])
@pytest.mark.parametrize("suffix", [".npz", ".npy"])
def test_images_come_back_with_a_channel(tmp_path, suffix, pixels):
    path = tmp_path / f"a{suffix}"
    if suffix == ".npz":
        np.savez_compressed(path, x=pixels, y=np.zeros(2))
    else:
        np.save(path, pixels)
    images = read(path)
    assert np.array_equal(images.images, pixels.reshape(2, 4, 4, -1))
    assert images.groups is None
    assert images.maximum == 255


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (COLOR.astype(np.float32), "is float32, not uint8"),
        (COLOR[0, 0], r"has the shape \(4, 3\); images must be \(N, H, W\)"),
        (COLOR.transpose(0, 3, 1, 2), r"has the shape \(2, 3, 4, 4\); .* C 1 or 3"),
        (COLOR[:0], r"has the shape \(0, 4, 4, 3\)"),
    ],
)
def test_another_type_or_shape_is_refused_with_a_hint(tmp_path, pixels, message):
    np.savez(tmp_path / "a.npz", x=pixels)
    with pytest.raises(ValueError, match=rf"a\.npz\['x'\] {message}"):
        read(tmp_path / "a.npz")


def test_a_missing_field_is_named_with_those_there_are(tmp_path):
    np.savez(tmp_path / "a.npz", train=COLOR, test=COLOR)
    with pytest.raises(
        ValueError, match=r"a\.npz has no array 'x', only 'train', 'test'; correct the source's `field` in params"
    ):
        read(tmp_path / "a.npz")


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
def test_pickled_objects_are_refused(tmp_path, suffix):
    objects = np.array([{}, []], dtype=object)
    path = tmp_path / f"a{suffix}"
    np.savez(path, x=objects) if suffix == ".npz" else np.save(path, objects, allow_pickle=True)
    with pytest.raises(
        ValueError, match=rf"a\{suffix}(\['x'\] is object.* save pixel| is empty, truncated.*; save it again)"
    ):
        read(path)


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
@pytest.mark.parametrize("kept", [0, 3, 100, -40])
def test_a_truncated_file_is_named_with_a_hint(tmp_path, suffix, kept):
    path = tmp_path / f"a{suffix}"
    np.savez(path, x=COLOR) if suffix == ".npz" else np.save(path, COLOR)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=rf"a\{suffix} is (empty, )?truncated.* save it again"):
        read(path)


def test_a_path_that_is_no_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"is not a file; correct the source's `path`"):
        read(tmp_path)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64])
def test_labels_are_read_if_their_array_is_named(tmp_path, dtype):
    np.savez(tmp_path / "a.npz", x=COLOR, y=np.array([4, 2], dtype=dtype))
    images = read(tmp_path / "a.npz", labels="y")
    assert images.labels.tolist() == [4, 2]
    assert (images.labels.dtype, images.classes, images.class_names) == (np.int64, 5, ())
    assert read(tmp_path / "a.npz", labels=None).labels is None
    assert read(tmp_path / "a.npz").labels is None


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(2), "is float64; labels must be integers"),
        (np.zeros(2, bool), "is bool; labels must be integers"),
        (np.array(["cat", "dog"]), "is <U3; labels must be integers"),
        (np.zeros(3, np.int64), r"has the shape \(3,\); .* one label for each of the 2 images"),
        (np.zeros((2, 1), np.int64), r"has the shape \(2, 1\); .* one label for each of the 2 images"),
        (np.array([0, -1]), "has the label -1; labels must not be negative"),
        (np.array([0, 2**63], np.uint64), "labels must not be negative"),
    ],
)
def test_labels_that_are_no_classes_are_refused_with_a_hint(tmp_path, labels, message):
    np.savez(tmp_path / "a.npz", x=COLOR, y=labels)
    with pytest.raises(ValueError, match=rf"a\.npz\['y'\] .*{message}"):
        read(tmp_path / "a.npz", labels="y")


def test_labels_that_are_not_there_are_named_with_what_is(tmp_path):
    np.savez(tmp_path / "a.npz", x=COLOR)
    with pytest.raises(ValueError, match=r"a\.npz has no array 'y', only 'x'; correct the source's `labels` in params"):
        read(tmp_path / "a.npz", labels="y")
    np.save(tmp_path / "a.npy", COLOR)
    with pytest.raises(ValueError, match=r"a\.npy has one array and no labels = 'y'; .*, or .* to null"):
        read(tmp_path / "a.npy", labels="y")


@pytest.mark.parametrize("labels", [None, "y"])
def test_the_batches_of_a_large_array_are_the_array(tmp_path, labels):
    pixels = np.random.default_rng(0).integers(0, 256, (600, 2, 3), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", x=pixels, y=np.arange(600))
    images = images_of("npy", tmp_path / "a.npz", labels=labels)
    assert np.array_equal(images.images, pixels[..., None])
    assert images.groups is None
    assert images.labels is None if labels is None else images.labels.tolist() == list(range(600))
