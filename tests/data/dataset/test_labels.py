"""Labels on their way from the source to the batch: each stays with its image."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mdpipe.data.dataset import EncodedDataset
from mdpipe.data.raw import ImageBatch
from mdpipe.data.sources import open_source
from mdpipe.data.splits import SPLITS
from mdpipe.data.training_batches import training_batch, training_labels
from mdpipe.params.sources import Source
from tests.data.builders import encode_images
from tests.data.shards import write_raw

reuse_the_dataset = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)

NUMBERED = np.arange(40, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 6, 1), np.uint8)
"""Forty images, each filled with its own number: image n is of class n mod 3."""


@pytest.fixture
def encoded(tmp_path):
    """Encode images as tiles of 4 x 4."""

    def encode(image_batch, size=4, stride=1):
        write_raw(tmp_path / "raw" / "images", "npy", image_batch)
        directory = tmp_path / "encoded" / "images"
        levels = image_batch.maximum + 1
        encode_images(tmp_path / "raw" / "images", levels, size, stride, directory, 0, 0.2, 0.2)
        return directory

    return encode


def read_source(kind, path, work_dir, **settings):
    """All images of a source at once."""
    source = Source.parse({"kind": kind, "path": str(path), **settings})
    [shard] = open_source(source, work_dir)
    batches = list(shard.read(Counter()))
    images, labels = (np.concatenate([getattr(batch, name) for batch in batches]) for name in ("images", "labels"))
    return replace(batches[0], images=images, labels=labels, groups=None)


@pytest.fixture
def numbered(encoded):
    return encoded(ImageBatch(NUMBERED, np.arange(40, dtype=np.int32), 255, np.arange(40) % 3))


def rows(directory, split, batch_size=7):
    """All (tokens, label) of a split, as evaluation reads them."""
    dataset = EncodedDataset.open(directory, split)
    for indices, tokens in dataset.evaluation_batches(batch_size):
        yield from zip(tokens, dataset.require_labels()[indices], strict=True)


def test_digits_have_the_labels_that_scikit_learn_gives_them(encoded):
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = digits.images.astype(np.uint8)
    expected = {image.tobytes(): label for image, label in zip(images, digits.target, strict=True)}
    directory = encoded(read_source("digits", None, None), size=8, stride=8)
    found = [(tokens.astype(np.uint8).tobytes(), label) for split in SPLITS for tokens, label in rows(directory, split)]
    assert len(found) == 1797
    assert all(expected[image] == label for image, label in found)
    assert EncodedDataset.open(directory, "test").classes == 10


def test_every_tile_has_the_label_of_its_image(numbered):
    """An image has three training tiles, and one otherwise."""
    for split, tiles in (("train", 24 * 3), ("validation", 8), ("test", 8)):
        assert EncodedDataset.open(numbered, split).labels.shape == (tiles,)
        assert all(label == tokens[0] % 3 for tokens, label in rows(numbered, split))


def test_labels_of_arrays_reach_the_batch(tmp_path, encoded):
    np.savez(tmp_path / "a.npz", images=NUMBERED, kinds=(np.arange(40) % 3).astype(np.uint8))
    directory = encoded(read_source("npy", tmp_path / "a.npz", tmp_path, field="images", labels="kinds"))
    for split in SPLITS:
        assert all(label == tokens[0] % 3 for tokens, label in rows(directory, split))


def test_labels_of_folders_reach_the_batch(tmp_path, encoded):
    """Image n is in the folder a, b or c by n mod 3, half of them one level deeper."""
    for number, pixels in enumerate(NUMBERED):
        file = tmp_path / "files" / "abc"[number % 3] / ("deep" if number % 2 else "") / f"{number:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[..., 0]).save(file)
    directory = encoded(
        read_source(
            "image_folder", tmp_path / "files", tmp_path, pattern="**/*.png", labels="folder", mode=None, resize=None
        )
    )
    for split in SPLITS:
        assert all(label == tokens[0] % 3 for tokens, label in rows(directory, split))


@reuse_the_dataset
@given(seed=st.integers(0, 2**63 - 1), step=st.integers(0, 10**7), batch_size=st.integers(1, 100), data=st.data())
def test_training_labels_match_any_rows_of_the_batch(numbered, seed, step, batch_size, data):
    dataset = EncodedDataset.open(numbered, "train")
    start, stop = sorted(data.draw(st.tuples(*[st.integers(0, batch_size)] * 2)))
    for share in (None, range(start, stop), range(start, stop, 3)):
        labels = training_labels(dataset, seed, step, batch_size, share)
        assert labels.dtype == np.int64
        assert labels.tolist() == (training_batch(dataset, seed, step, batch_size, share)[:, 0] % 3).tolist()


def test_rows_outside_the_batch_have_no_labels(numbered):
    with pytest.raises(ValueError, match="not rows of a batch of 8"):
        training_labels(EncodedDataset.open(numbered, "train"), 0, 0, 8, range(9))


def test_batches_of_labels_can_be_written_to(numbered):
    """Torch builds a tensor on memory that it may write to."""
    dataset = EncodedDataset.open(numbered, "train")
    labels = training_labels(dataset, 0, 0, 4)
    assert type(labels) is np.ndarray
    assert labels.flags.writeable


@pytest.mark.parametrize("unlabeled", ["text_dataset", "image_dataset"])
def test_without_labels_no_classes_can_be_read(request, unlabeled):
    directory = request.getfixturevalue(unlabeled)
    dataset = EncodedDataset.open(directory, "train")
    assert (dataset.classes, dataset.labels) == (0, None)
    assert not list(directory.glob("*labels*"))
    for read in (lambda: training_labels(dataset, 0, 0, 8), dataset.require_labels):
        with pytest.raises(ValueError, match=r"has no labels; say in params.yaml which `labels`"):
            read()


def test_labels_leave_the_tokens_as_they_are(encoded):
    files = {}
    for labels in (None, np.arange(40) % 3):
        directory = encoded(ImageBatch(NUMBERED, np.arange(40, dtype=np.int32), 255, labels))
        files[labels is None] = {path.name: path.read_bytes() for path in directory.iterdir()}
    plain, labeled = files[True], files[False]
    assert labeled.keys() - plain.keys() == {f"{split}_labels-00000.npy" for split in SPLITS}
    assert {name for name in plain if plain[name] != labeled[name]} == {
        "dataset.json",
        "manifest.json",
        "manifest.parquet",
    }


@pytest.mark.parametrize(
    "labels",
    [None, np.zeros(7, np.int64), np.zeros((8, 1), np.int64), np.zeros(8, np.int32), np.full(8, 3), np.full(8, -1)],
)
def test_damaged_labels_are_named_with_a_hint(numbered, labels):
    path = numbered / "test_labels-00000.npy"
    path.unlink()
    if labels is not None:
        np.save(path, labels)
    with pytest.raises(ValueError, match=r"test_labels-00000\.npy .*run `dvc repro encode@images` again"):
        EncodedDataset.open(numbered, "test")
