"""Images in the format of MNIST."""

import gzip
import re
import struct
from collections import Counter

import numpy as np
import pytest

from mdpipe.data.raw import IMAGES_PER_BATCH as BATCH
from tests.data.sources.source_contents import concatenate_batches, images_of, shards_of

RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (BATCH + 50, 3, 2), dtype=np.uint8)
CLASSES = RANDOM.integers(0, 10, BATCH + 50, dtype=np.uint8)
IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def encode_idx(array, magic=b"\x00\x00\x08", shape=None):
    shape = array.shape if shape is None else shape
    return magic + bytes([len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + array.tobytes()


def read(path, **settings):
    return images_of("mnist_idx", path, **{"images": IMAGES, **settings})


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_images_and_classes_come_in_their_order(tmp_path, suffix):
    pack = gzip.compress if suffix else bytes
    (tmp_path / f"{IMAGES}{suffix}").write_bytes(pack(encode_idx(PIXELS)))
    (tmp_path / f"{LABELS}{suffix}").write_bytes(pack(encode_idx(CLASSES)))
    images = read(tmp_path, images=f"{IMAGES}{suffix}", labels=f"{LABELS}{suffix}")
    assert np.array_equal(images.images, PIXELS[..., None])
    assert np.array_equal(images.labels, CLASSES)
    assert (images.labels.dtype, images.groups, images.maximum) == (np.int64, None, 255)
    assert read(tmp_path, images=f"{IMAGES}{suffix}").labels is None


def test_files_can_be_the_splits_of_the_source(tmp_path):
    for name, chosen in (("train", slice(0, 300)), ("t10k", slice(300, 306))):
        (tmp_path / f"{name}-images").write_bytes(encode_idx(PIXELS[chosen]))
        (tmp_path / f"{name}-labels").write_bytes(encode_idx(CLASSES[chosen]))
    images = {"train": "train-images", "test": "t10k-images"}
    labels = {"test": "t10k-labels", "train": "train-labels"}
    shards = shards_of("mnist_idx", tmp_path, images=images, labels=labels)
    found = {shard.split: concatenate_batches(list(shard.read(Counter()))) for shard in shards}
    assert list(found) == ["test", "train"]
    assert np.array_equal(found["train"].images[..., 0], PIXELS[:300])
    assert np.array_equal(found["test"].labels, CLASSES[300:])


def test_a_missing_file_is_named(tmp_path):
    (tmp_path / IMAGES).write_bytes(encode_idx(PIXELS))
    with pytest.raises(
        ValueError, match=rf"{LABELS} does not exist; correct the source's `path`, `images` or `labels`"
    ):
        shards_of("mnist_idx", tmp_path, images=IMAGES, labels=LABELS)


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("kept", [5, 15, 16, 17, 0.5, -1])
def test_a_file_that_ends_too_soon_is_named(tmp_path, suffix, kept):
    content = encode_idx(PIXELS)[: int(kept * PIXELS.nbytes) if isinstance(kept, float) else kept]
    (tmp_path / f"{IMAGES}{suffix}").write_bytes(gzip.compress(content) if suffix else content)
    with pytest.raises(ValueError, match=rf"{re.escape(IMAGES + suffix)} is truncated: .*; replace it"):
        read(tmp_path, images=f"{IMAGES}{suffix}")


def test_a_truncated_packed_file_is_named(tmp_path):
    (tmp_path / f"{IMAGES}.gz").write_bytes(gzip.compress(encode_idx(PIXELS))[:-20])
    with pytest.raises(ValueError, match=rf"{IMAGES}\.gz is truncated or no \.gz file"):
        read(tmp_path, images=f"{IMAGES}.gz")


@pytest.mark.parametrize("part", ["images", "labels"])
def test_a_file_that_is_longer_than_it_says_is_named(tmp_path, part):
    more = {name: b"\0" if name == part else b"" for name in ("images", "labels")}
    (tmp_path / IMAGES).write_bytes(encode_idx(PIXELS) + more["images"])
    (tmp_path / LABELS).write_bytes(encode_idx(CLASSES) + more["labels"])
    with pytest.raises(ValueError, match=rf"train-{part}.* is longer than its header says; replace it"):
        read(tmp_path, labels=LABELS)


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("shape", [(2**31, 28, 28), (60_000, 2**16, 2**16), (2**32 - 1,) * 3])
def test_a_header_that_promises_more_than_memory_is_refused(tmp_path, suffix, shape):
    content = encode_idx(PIXELS, shape=shape)
    (tmp_path / f"{IMAGES}{suffix}").write_bytes(gzip.compress(content) if suffix else content)
    with pytest.raises(ValueError, match="is truncated: it ends before what its header promises"):
        read(tmp_path, images=f"{IMAGES}{suffix}")


@pytest.mark.parametrize(
    ("content", "begins"),
    [
        (b"", "nothing"),
        (b"\x00\x00\x08", "00 00 08"),
        (b"\x00\x00\x08\x00", "00 00 08 00"),
        (encode_idx(PIXELS.astype(">f4"), magic=b"\x00\x00\x0d"), "00 00 0d 03"),
        (gzip.compress(encode_idx(PIXELS)), "1f 8b 08"),
        (b"\x89PNG\r\n", "89 50 4e 47"),
    ],
)
def test_another_kind_of_file_is_named_with_its_first_bytes(tmp_path, content, begins):
    (tmp_path / IMAGES).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{IMAGES} is not an IDX file of unsigned bytes: it begins with {begins}"):
        read(tmp_path)


@pytest.mark.parametrize("shape", [(6,), (6, 4), (2, 3, 2, 2), (0, 3, 2), (3, 0, 2)])
def test_an_array_of_another_shape_is_named(tmp_path, shape):
    (tmp_path / IMAGES).write_bytes(encode_idx(np.zeros(shape, np.uint8)))
    with pytest.raises(ValueError, match=rf"{IMAGES} has the shape \({shape[0]},.*; images are \(N, H, W\)"):
        read(tmp_path)


@pytest.mark.parametrize("labels", [CLASSES[1:], CLASSES[:, None], PIXELS])
def test_labels_that_do_not_fit_the_images_are_named(tmp_path, labels):
    (tmp_path / IMAGES).write_bytes(encode_idx(PIXELS))
    (tmp_path / LABELS).write_bytes(encode_idx(labels))
    with pytest.raises(
        ValueError, match=rf"{LABELS} has the shape \(\d+,.*; there must be one label for each of the 306 images"
    ):
        read(tmp_path, labels=LABELS)
