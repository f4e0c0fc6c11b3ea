"""Labels of every source are numbers of classes, consecutive from 0, or are refused before anything is trained."""

import io
import json
import struct

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mdpipe.data.sources.writer import write_shards
from tests.data.sources.source_contents import shards_of

pytestmark = pytest.mark.slow

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 4, 4), dtype=np.uint8)


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def arrays(folder, labels):
    np.savez(folder / "a.npz", x=PIXELS, y=labels)
    return shards_of("npy", folder / "a.npz", labels="y")


def planar(folder, labels, **numbering):
    np.savez(folder / "a.npz", data=PIXELS.reshape(len(PIXELS), -1), y=labels)
    stated = {"field": "y", "first": 0, "num_classes": 10, **numbering}
    return shards_of("npz_flat", folder, shape=(1, 4, 4), labels=stated)


def idx(folder, labels):
    labels = np.asarray(labels)
    for name, content in (("images", PIXELS), ("labels", labels.astype(np.uint8))):
        header = struct.pack(f">4B{content.ndim}I", 0, 0, 8, content.ndim, *content.shape)
        (folder / name).write_bytes(header + content.tobytes())
    return shards_of("mnist_idx", folder, labels="labels")


def table(folder, labels):
    pq.write_table(pa.table({"image": [png(pixels) for pixels in PIXELS], "label": labels}), folder / "a.parquet")
    return shards_of("parquet_images", folder, label_column="label")


def named_table(folder, labels, names, file="a.parquet"):
    from datasets import ClassLabel, Dataset, Features  # Every process of the tests collects this module.
    from datasets import Image as ImageColumn

    features = Features({"image": ImageColumn(), "label": ClassLabel(names=names)})
    rows = {"image": [{"bytes": png(pixels), "path": None} for pixels in PIXELS], "label": labels}
    Dataset.from_dict(rows, features=features).to_parquet(folder / file)
    return shards_of("parquet_images", folder, label_column="label")


def write(folder, shards):
    write_shards(folder / "raw" / "s", "npy", shards, folder / "work_dir")
    return json.loads((folder / "raw" / "s" / "source.json").read_text())


@pytest.mark.parametrize("source", [arrays, idx, table])
def test_labels_from_0_on_are_classes(tmp_path, source):
    assert write(tmp_path, source(tmp_path, [0, 1, 2] * 4))["classes"] == 3


@pytest.mark.parametrize("source", [arrays, table])
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([10**9, 10**9 + 1, 10**9 + 2] * 4, "3 different ones from 1000000000 to 1000000002, and no image has 0"),
        ([1, 2, 3] * 4, "3 different ones from 1 to 3, and no image has 0"),
        ([0, 1, 3] * 4, "3 different ones from 0 to 3, and no image has 2"),
        (list(range(0, 24, 2)), "12 different ones from 0 to 22, and no image has 1"),
    ],
)
def test_ids_and_numbers_with_gaps_are_refused_with_a_hint(tmp_path, source, labels, message):
    hint = f"labels are not consecutive from 0: there are {message}; number the classes"
    with pytest.raises(ValueError, match=hint):
        write(tmp_path, source(tmp_path, labels))
    assert not (tmp_path / "raw" / "s").exists()


def test_gaps_in_one_byte_labels_are_refused(tmp_path):
    with pytest.raises(ValueError, match="3 different ones from 7 to 9, and no image has 0"):
        write(tmp_path, idx(tmp_path, [7, 8, 9] * 4))


def test_a_gap_in_one_file_may_be_filled_by_another(tmp_path):
    """Splits need not have all classes each."""
    rows = {"image": [png(pixels) for pixels in PIXELS]}
    pq.write_table(pa.table({**rows, "label": [0, 3] * 6}), tmp_path / "a.parquet")
    pq.write_table(pa.table({**rows, "label": [1, 2] * 6}), tmp_path / "b.parquet")
    patterns = {"train": "a.parquet", "test": "b.parquet"}
    found = write(tmp_path, shards_of("parquet_images", tmp_path, pattern=patterns, label_column="label"))
    assert found["classes"] == 4


@pytest.mark.parametrize("source", [arrays, planar, table])
@pytest.mark.parametrize(
    "labels",
    [[-1] + [0] * 11, [0.0, 1.0] * 6, [0.0] * 11 + [float("nan")], [True, False] * 6, ["cat", "dog"] * 6],
    ids=["negative", "float", "missing", "bool", "text"],
)
def test_what_is_no_class_is_refused_and_named(tmp_path, source, labels):
    if source is table and labels[-1] != labels[-1]:
        labels = [0] * 11 + [None]
    with pytest.raises(ValueError, match=r"^\S+ (has the (class|label) -1|has no class in|is (float64|bool|<U3))"):
        write(tmp_path, source(tmp_path, labels))


def test_stated_classes_may_be_without_images(tmp_path):
    assert write(tmp_path, planar(tmp_path, [1, 3] * 6, first=1, num_classes=7))["classes"] == 7
    (tmp_path / "b").mkdir()
    found = write(tmp_path / "b", named_table(tmp_path / "b", [0, 2] * 6, ["ant", "bee", "cat", "dog"]))
    assert (found["classes"], found["class_names"]) == (4, ["ant", "bee", "cat", "dog"])


def test_files_with_other_names_for_their_classes_are_refused(tmp_path):
    """Class 0 of one would be class 1 of the other."""
    named_table(tmp_path, [0, 1] * 6, ["cat", "dog"])
    with pytest.raises(ValueError, match=r"different names for their classes, \['cat', 'dog'\] and \['dog', 'cat'\]"):
        write(tmp_path, named_table(tmp_path, [0, 1] * 6, ["dog", "cat"], "b.parquet"))
