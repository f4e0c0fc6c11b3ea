"""Sets of the catalog that everybody has to get: what is said where a file is missing, and what is made of them."""

import tarfile

import numpy as np
import pytest
from PIL import Image

from mdpipe.data.raw import read_images
from mdpipe.params import parse_params
from mdpipe.params.catalog import CatalogEntry, load_catalog
from mdpipe.pipeline import paths
from mdpipe.stages import download as stage
from mdpipe.stages.download import download
from tests.stages.plan_rows import smoke

pytestmark = pytest.mark.slow

RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
FILES = {"imagenet64": ["train_64x64.tar", "valid_64x64.tar"], "imagenet64_box": ["Imagenet64_val_npz.zip"]}


def params_with_copy(name, path="my"):
    content = smoke()
    content["sources"]["own"] = {"kind": "catalog", "name": name, "path": path}
    return parse_params(content)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my").mkdir()
    (tmp_path / "constraints.txt").write_text("")
    return tmp_path


@pytest.fixture
def small(monkeypatch):
    """The catalog, as if these were the published numbers."""

    def publish(name, **counts):
        facts = load_catalog()[name]
        monkeypatch.setattr(stage, "find_entry", lambda _: CatalogEntry(**{**vars(facts), "counts": counts}))

    return publish


def put_original(place):
    for split, images in (("train", PIXELS[:2]), ("valid", PIXELS[2:])):
        folder = place / f"{split}_64x64"
        folder.mkdir()
        for index, image in enumerate(images):
            Image.fromarray(image).save(folder / f"{index}.png")
        with tarfile.open(place / "my" / f"{split}_64x64.tar", "w") as archive:
            archive.add(folder, folder.name)


def put_box(place):
    rows = PIXELS.transpose(0, 3, 1, 2).reshape(3, -1)
    for name, chosen in (("train_data_batch_1", [0]), ("train_data_batch_2", [1]), ("val_data", [2])):
        folder = place / "my" / ("Imagenet64_val_npz" if name == "val_data" else "Imagenet64_train_part1_npz")
        folder.mkdir(exist_ok=True)
        mean = {} if name == "val_data" else {"mean": rows.mean(axis=0)}
        np.savez(folder / f"{name}.npz", data=rows[chosen], labels=np.array([1, 1000, 7])[chosen], **mean)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("path", ["elsewhere", "constraints.txt", "my"])
def test_missing_files_are_named_with_who_has_them(place, name, path):
    """Also for a path that such a set had when it was fetched from a hub."""
    with pytest.raises(
        ValueError, match=rf"^(no file in the folder )?{path}\b.*\. The folder `path` is to have"
    ) as found:
        download(params_with_copy(name, path), "own")
    assert all(file in str(found.value) for file in FILES[name])


@pytest.mark.parametrize(("name", "put"), [("imagenet64", put_original), ("imagenet64_box", put_box)])
def test_the_files_as_they_are_give_images_by_split(place, small, name, put):
    put(place)
    small(name, train=2, validation=1)
    download(params_with_copy(name), "own")
    raw = read_images(paths.raw("own"))
    assert [(shard.split, shard.count) for shard in raw.shards] == {
        "imagenet64": [("train", 2), ("validation", 1)],
        "imagenet64_box": [("train", 1), ("train", 1), ("validation", 1)],
    }[name]
    # Van den Oord's come in the order of the archive, which is that of a folder.
    found = sorted(image.tobytes() for image in raw.images[:2])
    assert found == sorted(image.tobytes() for image in PIXELS[:2])
    assert np.array_equal(raw.images[2:], PIXELS[2:])
    if name == "imagenet64_box":
        assert [int(label) for shard in raw.shards for label in raw.labels_of(shard)] == [0, 999, 6]


@pytest.mark.parametrize("name", FILES)
def test_a_set_of_another_size_is_not_the_published_one(place, name):
    {"imagenet64": put_original, "imagenet64_box": put_box}[name](place)
    with pytest.raises(ValueError, match=r"train should be 1,281,1\d\d by the catalog, and there are 2"):
        download(params_with_copy(name), "own")
