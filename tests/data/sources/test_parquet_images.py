"""Images in parquet and arrow files, as hubs keep them."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mdpipe.data.raw import IMAGES_PER_BATCH as BATCH
from tests.data.sources.source_contents import concatenate_batches, images_of, shard_bytes, shards_of
from tests.data.sources.test_image_decoding import encode_image

RGB = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), dtype=np.uint8)
NAMES = ["cat", "dog", "emu"]
LABELS = [2, 0, 1, 1, 0, 2]


def content(images=RGB):
    return [encode_image(image) for image in images]


def write(path, images=None, row_group_size=2, **columns):
    rows = pa.table({"image": content() if images is None else images, **columns})
    if path.suffix == ".parquet":
        pq.write_table(rows, path, row_group_size=row_group_size)
    else:
        with pa.ipc.new_file(path, rows.schema) as file:
            file.write_table(rows, max_chunksize=row_group_size)


def read(path, **settings):
    return images_of("parquet_images", path, **settings)


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
@pytest.mark.parametrize("wrapped", [False, True], ids=["bytes", "structure"])
@pytest.mark.parametrize("size", [1, 2**25])
def test_a_row_is_an_image(tmp_path, suffix, wrapped, size):
    images = [{"bytes": one, "path": f"{number}.png"} for number, one in enumerate(content())] if wrapped else None
    write(tmp_path / f"a.{suffix}", images, kind=LABELS)
    with shard_bytes(size):
        shards = shards_of("parquet_images", tmp_path, pattern="a.*", label_column="kind")
        images = read(tmp_path, pattern="a.*", label_column="kind")
    assert len(shards) == (3 if size == 1 else 1)
    assert np.array_equal(images.images, RGB)
    assert images.labels.tolist() == LABELS
    assert (images.groups, images.maximum, images.class_names, images.classes) == (None, 255, (), 3)


def test_images_have_no_classes_without_a_label_column(tmp_path):
    write(tmp_path / "a.parquet", label=LABELS)
    assert read(tmp_path).labels is None


@pytest.mark.parametrize("name", ["a.parquet", "saved"])
def test_names_of_classes_are_those_that_datasets_writes(tmp_path, name):
    from datasets import ClassLabel, Dataset, Features, Image

    features = Features({"image": Image(), "label": ClassLabel(names=NAMES)})
    rows = {"image": [{"bytes": one, "path": None} for one in content()], "label": LABELS}
    dataset = Dataset.from_dict(rows, features=features)
    if name == "saved":
        dataset.save_to_disk(tmp_path / name)
    else:
        dataset.to_parquet(tmp_path / name)
    pattern = "*.arrow" if name == "saved" else "*"
    images = read(tmp_path / name, pattern=pattern, label_column="label")
    assert np.array_equal(images.images, RGB)
    assert images.labels.tolist() == LABELS
    assert images.class_names == tuple(NAMES)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (3, "has the class 3 in the column 'label'; allowed are 0 to 2"),
        (-1, "has the class -1 in the column 'label'; allowed are 0 to 2"),
        (None, "has no class in the column 'label' but None"),
    ],
)
def test_a_class_that_has_no_name_is_named(tmp_path, label, message):
    from datasets import ClassLabel, Features, Image

    features = Features({"image": Image(), "label": ClassLabel(names=NAMES)})
    images = [{"bytes": one, "path": None} for one in content()[:2]]
    rows = pa.table({"image": images, "label": pa.array([2, label], pa.int64())})
    pq.write_table(rows.cast(features.arrow_schema), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=rf"a\.parquet:0000000001 {message}"):
        read(tmp_path, label_column="label")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, -2], "has the class -2 in the column 'label'; allowed are from 0 on"),
        ([0, None], "has no class in the column 'label' but None; classes are numbers from 0"),
        ([True, False], "has no class in the column 'label' but True"),
        (["cat", "dog"], "has no class in the column 'label' but 'cat'"),
        ([0.0, 1.0], r"has no class in the column 'label' but 0\.0"),
    ],
)
def test_labels_that_are_no_classes_are_named(tmp_path, labels, message):
    write(tmp_path / "a.parquet", content()[:2], label=labels)
    with pytest.raises(ValueError, match=rf"a\.parquet:000000000\d {message}"):
        read(tmp_path, label_column="label")


@pytest.mark.parametrize("images", [[None], ["a.png"], [7], [{"path": "a.png"}], [{"bytes": None, "path": "a.png"}]])
def test_a_row_without_an_image_is_named(tmp_path, images):
    write(tmp_path / "a.parquet", images)
    with pytest.raises(ValueError, match=r"a\.parquet:0000000000 has no bytes of an image in the column 'image'"):
        read(tmp_path)


def test_a_broken_image_is_named_by_its_row(tmp_path):
    write(tmp_path / "a.parquet", [*content()[:4], content()[4][:50]])
    with pytest.raises(ValueError, match=r"a\.parquet:0000000004 is truncated or no image"):
        read(tmp_path)


@pytest.mark.parametrize("before", [2, BATCH])
@pytest.mark.parametrize("other", [RGB[0, :3], RGB[0, ..., 0]])
def test_an_image_of_another_size_or_mode_is_named(tmp_path, other, before):
    write(tmp_path / "a.parquet", [*content()[:1] * before, encode_image(other)])
    message = rf"a\.parquet:{before:010d} is 5 x \d (RGB|gray) but .*a\.parquet:0+ is 5 x 4 RGB; all images .* `resize`"
    with pytest.raises(ValueError, match=message):
        read(tmp_path)


def test_images_of_many_sizes_are_brought_to_one(tmp_path):
    images = [np.full((height, 12, 3), height, np.uint8) for height in (6, 12, 30)]
    write(tmp_path / "a.parquet", content(images))
    images = read(tmp_path, resize=6)
    assert images.images.shape == (3, 6, 6, 3)
    assert images.images[:, 3, 3, 0].tolist() == [6, 12, 30]


@pytest.mark.parametrize(("column", "missing"), [("image_column", "picture"), ("label_column", "kind")])
def test_a_missing_column_is_named_with_those_there_are(tmp_path, column, missing):
    write(tmp_path / "a.parquet", label=LABELS)
    with pytest.raises(ValueError, match=rf"a\.parquet has no column '{missing}', only 'image', 'label'"):
        read(tmp_path, **{column: missing})


def test_several_batches_come_in_order(tmp_path):
    count = 2 * BATCH + 1
    images = content([np.full((2, 2), index % 256, np.uint8) for index in range(count)])
    write(tmp_path / "a.parquet", images, row_group_size=100, label=list(range(count)))
    images = read(tmp_path, label_column="label")
    assert images.images[:, 0, 0, 0].tolist() == [index % 256 for index in range(count)]
    assert images.labels.tolist() == list(range(count))


def test_patterns_can_be_the_splits_of_the_source(tmp_path):
    write(tmp_path / "train-0.parquet", content()[:4])
    write(tmp_path / "test-0.parquet", content()[4:])
    shards = shards_of("parquet_images", tmp_path, pattern={"train": "train-*", "test": "test-*"})
    found = {shard.split: concatenate_batches(list(shard.read(Counter()))).images for shard in shards}
    assert np.array_equal(found["train"], RGB[:4])
    assert np.array_equal(found["test"], RGB[4:])
