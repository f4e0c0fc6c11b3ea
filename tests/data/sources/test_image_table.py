"""Pictures in parquet and arrow files, as hubs keep them."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mdpipe.data.sources.pictures import BATCH
from tests.data.sources.reading import joined, part_bytes, parts_of, pictures_of
from tests.data.sources.test_decoded_pictures import encoded

RGB = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), dtype=np.uint8)
NAMES = ["cat", "dog", "emu"]
LABELS = [2, 0, 1, 1, 0, 2]


def content(images=RGB):
    return [encoded(image) for image in images]


def write(path, images=None, row_group_size=2, **columns):
    rows = pa.table({"image": content() if images is None else images, **columns})
    if path.suffix == ".parquet":
        pq.write_table(rows, path, row_group_size=row_group_size)
    else:
        with pa.ipc.new_file(path, rows.schema) as file:
            file.write_table(rows, max_chunksize=row_group_size)


def read(path, **settings):
    return pictures_of("image_table", path, **settings)


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
@pytest.mark.parametrize("wrapped", [False, True], ids=["bytes", "structure"])
@pytest.mark.parametrize("size", [1, 2**25])
def test_a_row_is_a_picture(tmp_path, suffix, wrapped, size):
    images = [{"bytes": one, "path": f"{number}.png"} for number, one in enumerate(content())] if wrapped else None
    write(tmp_path / f"a.{suffix}", images, kind=LABELS)
    with part_bytes(size):
        parts = parts_of("image_table", tmp_path, pattern="a.*", label="kind")
        pictures = read(tmp_path, pattern="a.*", label="kind")
    assert len(parts) == (3 if size == 1 else 1)
    assert np.array_equal(pictures.images, RGB)
    assert pictures.labels.tolist() == LABELS
    assert (pictures.groups, pictures.maximum, pictures.class_names, pictures.classes) == (None, 255, (), 3)


def test_pictures_have_no_classes_where_none_are_asked_for(tmp_path):
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
    pictures = read(tmp_path / name, pattern=pattern, label="label")
    assert np.array_equal(pictures.images, RGB)
    assert pictures.labels.tolist() == LABELS
    assert pictures.class_names == tuple(NAMES)


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
        read(tmp_path, label="label")


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
        read(tmp_path, label="label")


@pytest.mark.parametrize("images", [[None], ["a.png"], [7], [{"path": "a.png"}], [{"bytes": None, "path": "a.png"}]])
def test_a_row_without_a_picture_is_named(tmp_path, images):
    write(tmp_path / "a.parquet", images)
    with pytest.raises(ValueError, match=r"a\.parquet:0000000000 has no bytes of a picture in the column 'image'"):
        read(tmp_path)


def test_a_broken_picture_is_named_by_its_row(tmp_path):
    write(tmp_path / "a.parquet", [*content()[:4], content()[4][:50]])
    with pytest.raises(ValueError, match=r"a\.parquet:0000000004 is truncated or no picture"):
        read(tmp_path)


@pytest.mark.parametrize("before", [2, BATCH])
@pytest.mark.parametrize("other", [RGB[0, :3], RGB[0, ..., 0]])
def test_a_picture_of_another_size_or_mode_is_named(tmp_path, other, before):
    write(tmp_path / "a.parquet", [*content()[:1] * before, encoded(other)])
    message = (
        rf"a\.parquet:{before:010d} is 5 x \d (RGB|grey) but .*a\.parquet:0+ is 5 x 4 RGB; all pictures .* `resize`"
    )
    with pytest.raises(ValueError, match=message):
        read(tmp_path)


def test_pictures_of_many_sizes_are_brought_to_one(tmp_path):
    images = [np.full((height, 12, 3), height, np.uint8) for height in (6, 12, 30)]
    write(tmp_path / "a.parquet", content(images))
    pictures = read(tmp_path, resize=6)
    assert pictures.images.shape == (3, 6, 6, 3)
    assert pictures.images[:, 3, 3, 0].tolist() == [6, 12, 30]


@pytest.mark.parametrize(("settings", "missing"), [({"image": "picture"}, "picture"), ({"label": "kind"}, "kind")])
def test_a_missing_column_is_named_with_those_there_are(tmp_path, settings, missing):
    write(tmp_path / "a.parquet", label=LABELS)
    with pytest.raises(ValueError, match=rf"a\.parquet has no column '{missing}', only 'image', 'label'"):
        read(tmp_path, **settings)


def test_more_pictures_than_travel_together_come_in_order(tmp_path):
    count = 2 * BATCH + 1
    images = content([np.full((2, 2), index % 256, np.uint8) for index in range(count)])
    write(tmp_path / "a.parquet", images, row_group_size=100, label=list(range(count)))
    pictures = read(tmp_path, label="label")
    assert pictures.images[:, 0, 0, 0].tolist() == [index % 256 for index in range(count)]
    assert pictures.labels.tolist() == list(range(count))


def test_patterns_can_stand_for_the_splits_of_the_source(tmp_path):
    write(tmp_path / "train-0.parquet", content()[:4])
    write(tmp_path / "test-0.parquet", content()[4:])
    parts = parts_of("image_table", tmp_path, pattern={"train": "train-*", "test": "test-*"})
    found = {part.split: joined(list(part.read(Counter()))).images for part in parts}
    assert np.array_equal(found["train"], RGB[:4])
    assert np.array_equal(found["test"], RGB[4:])
