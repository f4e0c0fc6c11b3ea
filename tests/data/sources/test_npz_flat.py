"""Images as flat rows of .npz files, in the layout of the down-sampled ImageNet of Chrabaszcz et al."""

import tracemalloc
import zipfile
from collections import Counter

import numpy as np
import pytest

from mdpipe.data.sources import arrays
from tests.data.sources.source_contents import concatenate_batches, images_of, shards_of

pytestmark = pytest.mark.slow

RANDOM = np.random.default_rng(0)
SHAPE = (3, 4, 2)
"""(C, H, W)."""
PIXELS = RANDOM.integers(0, 256, (50, 4, 2, 3), dtype=np.uint8)
"""(N, H, W, C)."""
CLASSES = RANDOM.integers(0, 1000, 50)
NUMBERING = {"field": "labels", "first": 1, "num_classes": 1000}


def rows(pixels):
    """All of red, then of green, then of blue: (N, C * H * W)."""
    return np.concatenate([pixels[..., channel].reshape(len(pixels), -1) for channel in range(3)], axis=1)


def save(path, pixels=PIXELS, classes=CLASSES, pack=np.savez, **arrays):
    path.parent.mkdir(parents=True, exist_ok=True)
    pack(path, **{"data": rows(pixels), "labels": classes + 1, "mean": rows(pixels).mean(axis=0), **arrays})


def read(path, **settings):
    return images_of("npz_flat", path, **{"shape": SHAPE, "labels": NUMBERING, **settings})


@pytest.mark.parametrize("pack", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("batch_bytes", [1, 24 * 7, 2**22])
def test_images_and_classes_come_back_as_they_were(tmp_path, monkeypatch, pack, batch_bytes):
    monkeypatch.setattr(arrays, "BATCH_BYTES", batch_bytes)
    save(tmp_path / "a.npz", pack=pack)
    images = read(tmp_path)
    assert np.array_equal(images.images, PIXELS)
    assert np.array_equal(images.labels, CLASSES)
    assert (images.labels.dtype, images.groups, images.maximum) == (np.int64, None, 255)
    assert read(tmp_path / "a.npz", labels=None).labels is None


def test_files_in_any_folder_can_be_the_splits_of_the_source(tmp_path):
    chosen = {"part1/train_data_batch_1": 20, "part2/train_data_batch_2": 40, "val/val_data": 50}
    start = 0
    for name, end in chosen.items():
        save(tmp_path / f"{name}.npz", PIXELS[start:end], CLASSES[start:end])
        start = end
    pattern = {"train": "**/train_data_batch_*.npz", "validation": "**/val_data.npz"}
    shards = shards_of("npz_flat", tmp_path, pattern=pattern, shape=SHAPE, labels=NUMBERING)
    assert [shard.split for shard in shards] == ["train", "train", "validation"]
    found = concatenate_batches([batch for shard in shards for batch in shard.read(Counter())])
    assert np.array_equal(found.images, PIXELS)
    assert np.array_equal(found.labels, CLASSES)
    assert [shard.size for shard in shards] == [(tmp_path / f"{name}.npz").stat().st_size for name in chosen]


def test_gray_images_have_one_channel(tmp_path):
    save(tmp_path / "a.npz", data=PIXELS[..., 0].reshape(50, 8))
    assert np.array_equal(read(tmp_path, shape=(1, 4, 2)).images, PIXELS[..., :1])


@pytest.mark.parametrize("dtype", [np.uint16, ">i4", np.int64])
def test_labels_of_any_integer_type_are_numbered_from_0(tmp_path, dtype):
    save(tmp_path / "a.npz", labels=np.arange(7, 57).astype(dtype))
    labels = read(tmp_path, labels={"field": "labels", "first": 7, "num_classes": 50}).labels
    assert labels.tolist() == list(range(50))


def test_a_file_of_any_size_takes_a_few_batches_of_memory(tmp_path):
    """The file unpacks to 300 MB."""
    count, row = 25_000, RANDOM.integers(0, 256, 3 * 64 * 64, dtype=np.uint8)
    np.savez_compressed(tmp_path / "a.npz", data=np.broadcast_to(row, (count, len(row))), labels=np.ones(count, int))
    [shard] = shards_of("npz_flat", tmp_path, shape=(3, 64, 64), labels=NUMBERING)
    tracemalloc.start()
    try:
        read = sum(len(batch.images) for batch in shard.read(Counter()))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert read == count
    assert peak < 8 * arrays.BATCH_BYTES


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (rows(PIXELS).astype(np.float32), "is float32, not uint8"),
        (rows(PIXELS)[:, 1:], r"has the shape \(50, 23\); by the source's `shape` .* \(N, 3 \* 4 \* 2\)"),
        (PIXELS, r"has the shape \(50, 4, 2, 3\)"),
        (rows(PIXELS)[0], r"has the shape \(24,\)"),
        (np.uint8(1), r"has the shape \(\)"),
        (rows(PIXELS)[:0], r"has the shape \(0, 24\); .* with N at least 1"),
        (np.asfortranarray(rows(PIXELS)), "is in Fortran order; save it again"),
        (np.array([{}] * 50), "is object, not uint8"),
    ],
)
def test_pixels_of_another_type_or_shape_are_named(tmp_path, data, message):
    save(tmp_path / "a.npz", data=data)
    with pytest.raises(ValueError, match=rf"a\.npz\['data'\] {message}"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.r_[CLASSES[1:] + 1, 0], "has the label 0, .* from 1 to 1000"),
        (np.r_[CLASSES[1:] + 1, 1001], "has the label 1001, .* from 1 to 1000"),
        (np.r_[CLASSES[1:] + 1, -1], "has the label -1, "),
        (np.full(50, 2**63 + 1, np.uint64), f"has the label {2**63 + 1}, "),
        (CLASSES[1:] + 1, r"has the shape \(49,\); there must be one label for each of the 50 images"),
        (CLASSES[:, None] + 1, r"has the shape \(50, 1\)"),
        (CLASSES / 1, "is float64; labels must be integers"),
        (CLASSES > 1, "is bool; labels must be integers"),
    ],
)
def test_labels_that_are_no_classes_are_named(tmp_path, labels, message):
    save(tmp_path / "a.npz", labels=labels)
    with pytest.raises(ValueError, match=rf"a\.npz\['labels'\] {message}"):
        read(tmp_path)


def test_a_missing_array_is_named_with_the_present_ones(tmp_path):
    save(tmp_path / "a.npz")
    with pytest.raises(ValueError, match=r"a\.npz has no array 'x', only 'data', 'labels', 'mean'; correct .* `field`"):
        read(tmp_path, field="x")
    with pytest.raises(ValueError, match=r"a\.npz has no array 'y', only 'data', .*; correct the source's `labels` in"):
        read(tmp_path, labels={**NUMBERING, "field": "y"})


@pytest.mark.parametrize("pack", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("kept", [0, 3, 0.2, 0.9, -1])
def test_a_truncated_file_is_named(tmp_path, pack, kept):
    save(tmp_path / "a.npz", pack=pack)
    content = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    with pytest.raises(ValueError, match=r"a\.npz is truncated, damaged or not a \.npz file \(.+\); replace it"):
        read(tmp_path)


@pytest.mark.parametrize("pack", [np.savez, np.savez_compressed])
def test_damage_never_goes_unnoticed(tmp_path, pack):
    """One byte after the other; what is still read is what was there."""
    save(tmp_path / "a.npz", PIXELS[:5], CLASSES[:5], pack)
    content = (tmp_path / "a.npz").read_bytes()
    for position in range(0, len(content), 3):
        damaged = bytearray(content)
        damaged[position] ^= 0x55
        (tmp_path / "a.npz").write_bytes(damaged)
        try:
            images = read(tmp_path)
        except ValueError as error:
            assert "a.npz" in str(error)
        else:
            assert np.array_equal(images.images, PIXELS[:5])
            assert np.array_equal(images.labels, CLASSES[:5])


@pytest.mark.parametrize("promised", [49, 51, 10**15])
def test_a_header_that_does_not_fit_its_array_is_named(tmp_path, promised):
    """Also one that promises more than any memory has."""
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive, archive.open("data.npy", "w") as stream:
        header = {"descr": "|u1", "fortran_order": False, "shape": (promised, 24)}
        np.lib.format.write_array_header_1_0(stream, header)
        stream.write(rows(PIXELS).tobytes())
    with pytest.raises(ValueError, match=rf"a\.npz\['data'\] has 1,200 bytes and is uint8 of shape \({promised}, 24\)"):
        read(tmp_path, labels=None)


def test_a_pickle_is_not_read(tmp_path):
    """As the set's zips have it whose names are without npz."""
    (tmp_path / "train_data_batch_1").write_bytes(b"\x80\x03}q\x00(X\x04\x00\x00\x00dataq\x01")
    with pytest.raises(ValueError, match=r"train_data_batch_1 is truncated, damaged or not a \.npz file"):
        read(tmp_path, pattern="train_data_batch_*")


def test_a_folder_without_such_files_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no file in the folder .* fits '\*\.npz'"):
        read(tmp_path)
