"""Every source says how many files, rows and classes it found, and keeps that in its folder."""

import gzip
import json
import struct

import numpy as np
import pytest
from PIL import Image
from PIL.ExifTags import Base

from mdpipe.data.sources.writer import write_shards
from tests.data.sources.source_contents import shard_bytes, shards_of

pytestmark = pytest.mark.slow

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 4, 4), dtype=np.uint8)


def write(folder, kind, capsys, **settings):
    """What source.json says was read, and what the log says."""
    write_shards(folder / "raw" / "s", kind, shards_of(kind, folder, **settings), folder / "work_dir")
    return json.loads((folder / "raw" / "s" / "source.json").read_text())["read"], capsys.readouterr().err


def test_files_classes_and_what_was_done_to_images(tmp_path, capsys):
    turned = Image.Exif()
    turned[Base.Orientation] = 3
    for index, pixels in enumerate(IMAGES):
        (tmp_path / "ab"[index % 2]).mkdir(exist_ok=True)
        exif = {"exif": turned} if index == 4 else {}
        Image.fromarray(pixels).save(tmp_path / "ab"[index % 2] / f"{index}.png", **exif)
    with shard_bytes(100):
        read, log = write(tmp_path, "image_folder", capsys, pattern="*/*.png", labels="folder")
    assert read == {"files": 6, "images rotated as their EXIF data say": 1}
    assert log == "s: 6 images of 2 classes from 6 files; 1 image rotated as their EXIF data say\n"


def test_images_turned_change_no_number_that_the_catalog_expects(tmp_path):
    """What was counted of images once switched the check off."""
    turned = Image.Exif()
    turned[Base.Orientation] = 3
    Image.fromarray(IMAGES[0]).save(tmp_path / "0.png", exif=turned)
    shards = shards_of("image_folder", tmp_path, pattern={"train": "*.png"})
    with pytest.raises(ValueError, match="train should be 2 by the catalog, and there are 1"):
        write_shards(tmp_path / "raw", "image_folder", shards, tmp_path / "work_dir", {"train": 2})


def test_files_of_text(tmp_path, capsys):
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text(name * 30)
    with shard_bytes(40):
        read, log = write(tmp_path, "text", capsys)
    assert (read, log) == ({"files": 3}, "s: 3 documents from 3 files\n")


@pytest.mark.parametrize("packed", [False, True])
def test_rows_of_text_in_files_that_are_read_in_parts(tmp_path, capsys, packed):
    content = "".join(f"line {number}\n\n" for number in range(20)).encode()
    if packed:
        (tmp_path / "a.txt.gz").write_bytes(gzip.compress(content))
    else:
        (tmp_path / "a.txt").write_bytes(content)
    (tmp_path / "b.txt").write_bytes(content)
    with shard_bytes(30):
        read, log = write(tmp_path, "text", capsys, pattern="*", sample_by="line", empty_documents="drop")
    assert read == {"files": 2, "rows": 80, "empty rows left out": 40}
    assert log == "s: 40 documents from 2 files; 80 rows; 40 empty rows left out\n"


def test_files_of_arrays(tmp_path, capsys):
    np.savez(tmp_path / "a.npz", data=IMAGES.reshape(6, -1), y=np.arange(6) % 3)
    stated = {"field": "y", "first": 0, "num_classes": 5}
    read, log = write(tmp_path, "npz_flat", capsys, shape=(1, 4, 4), labels=stated)
    assert (read, log) == ({"files": 1}, "s: 6 images of 5 classes from 1 file\n")


def test_files_of_idx_and_of_one_array(tmp_path, capsys):
    for name, content in (("images", IMAGES), ("labels", (np.arange(6) % 3).astype(np.uint8))):
        header = struct.pack(f">4B{content.ndim}I", 0, 0, 8, content.ndim, *content.shape)
        (tmp_path / name).write_bytes(header + content.tobytes())
    assert write(tmp_path, "mnist_idx", capsys, labels="labels") == (
        {"files": 2},
        "s: 6 images of 3 classes from 2 files\n",
    )
    np.save(tmp_path / "a.npy", IMAGES)
    write_shards(tmp_path / "raw" / "t", "npy", shards_of("npy", tmp_path / "a.npy"), tmp_path / "other")
    assert capsys.readouterr().err == "t: 6 images from 1 file\n"


def test_what_comes_with_packages_has_no_files(tmp_path, capsys):
    assert write(tmp_path, "digits", capsys) == ({}, "s: 1,797 images of 10 classes\n")
