"""Image files."""

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from mdpipe.data.raw import IMAGES_PER_BATCH as BATCH
from tests.data.sources.source_contents import concatenate_batches, images_of, shard_bytes, shards_of

RANDOM = np.random.default_rng(0)
RGB = RANDOM.integers(0, 256, (3, 5, 4, 3), dtype=np.uint8)


def read(path, **settings):
    return images_of("image_folder", path, **settings)


def save(path, pixels):
    Image.fromarray(pixels).save(path)


def test_images_come_in_the_order_of_their_names(tmp_path):
    for name, pixels in zip(("b", "c", "a"), RGB, strict=True):
        save(tmp_path / f"{name}.png", pixels)
    images = read(tmp_path)
    assert np.array_equal(images.images, RGB[[2, 0, 1]])
    assert images.groups is None
    assert images.maximum == 255


def test_gray_images_have_one_channel(tmp_path):
    save(tmp_path / "a.png", RGB[0, :, :, 0])
    assert np.array_equal(read(tmp_path).images, RGB[:1, :, :, :1])


@pytest.mark.parametrize("other", [RGB[0, :4], RGB[0, :, :, 0]])
def test_images_of_another_size_or_mode_are_named_with_the_first(tmp_path, other):
    save(tmp_path / "a.png", RGB[0])
    save(tmp_path / "b.png", other)
    with pytest.raises(ValueError, match=r"b\.png is 4 x \d (RGB|gray) but .*a\.png is 4 x 5 RGB; all images"):
        read(tmp_path)


def test_a_folder_without_images_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no file in the folder .* fits '\*\.png'"):
        read(tmp_path)


def test_the_first_sub_folder_is_the_class(tmp_path):
    for name in ("dog/a", "cat/z", "cat/deep/dog/b", "Zebra/c"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        save(tmp_path / f"{name}.png", RGB[0])
    images = read(tmp_path, pattern="**/*.png", labels="folder")
    assert images.class_names == ("Zebra", "cat", "dog")
    assert images.labels.dtype == np.int64
    assert [images.class_names[label] for label in images.labels] == ["Zebra", "cat", "cat", "dog"]
    assert read(tmp_path, pattern="**/*.png", labels=None).labels is None


def test_an_image_in_no_sub_folder_is_named_with_a_hint(tmp_path):
    (tmp_path / "cat").mkdir()
    for name in ("cat/a.png", "b.png"):
        save(tmp_path / name, RGB[0])
    with pytest.raises(ValueError, match=r"b\.png in .* is in no sub-folder .*`pattern` .* '\*/\*'.* `labels` to null"):
        read(tmp_path, pattern="**/*.png", labels="folder")


def test_the_folder_below_those_of_the_pattern_is_the_class(tmp_path):
    for name in ("train/dog/a", "train/cat/b", "val/dog/c", "val/ant/d"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        save(tmp_path / f"{name}.png", RGB[0])
    patterns = {"train": "train/*/*.png", "test": "val/**/*.png"}
    shards = shards_of("image_folder", tmp_path, pattern=patterns, labels="folder")
    found = [(shard.split, concatenate_batches(list(shard.read(Counter())))) for shard in shards]
    assert [(split, images.labels.tolist()) for split, images in found] == [("test", [0, 2]), ("train", [1, 2])]
    assert {images.class_names for _, images in found} == {("ant", "cat", "dog")}


@pytest.mark.parametrize("pattern", ["*.png", {"train": "*.png"}])
def test_a_single_image_has_no_class(tmp_path, pattern):
    save(tmp_path / "a.png", RGB[0])
    assert np.array_equal(read(tmp_path / "a.png", pattern=pattern).images, RGB[:1])
    with pytest.raises(ValueError, match=r"a\.png in .* is in no sub-folder"):
        read(tmp_path / "a.png", pattern=pattern, labels="folder")


def test_several_batches_come_in_order_with_their_classes(tmp_path):
    count = 2 * BATCH + 1
    for index in range(count):
        folder = tmp_path / f"{index % 3}"
        folder.mkdir(exist_ok=True)
        save(folder / f"{index:04d}.png", np.full((2, 2), index % 256, np.uint8))
    images = read(tmp_path, pattern="*/*.png", labels="folder")
    expected = [index for rest in range(3) for index in range(rest, count, 3)]
    assert images.images[:, 0, 0, 0].tolist() == [index % 256 for index in expected]
    assert images.labels.tolist() == [index % 3 for index in expected]
    with shard_bytes(1000):
        assert len(shards_of("image_folder", tmp_path, pattern="*/*.png")) > 3
        assert np.array_equal(read(tmp_path, pattern="*/*.png").images, images.images)


def test_images_of_many_sizes_are_brought_to_one(tmp_path):
    for name, shape in (("a", (8, 8)), ("b", (8, 30)), ("c", (17, 9)), ("d", (4, 4))):
        save(tmp_path / f"{name}.png", np.full((*shape, 3), ord(name), np.uint8))
    images = read(tmp_path, resize=4)
    assert images.images.shape == (4, 4, 4, 3)
    assert [set(image.ravel().tolist()) for image in images.images] == [{ord(name)} for name in "abcd"]


def in_folders(tmp_path, *names):
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        save(tmp_path / f"{name}.png", RGB[0])


@pytest.mark.parametrize(
    ("names", "pattern", "written"),
    [
        (("train/cat/a", "test/cat/b"), "**/*.png", r'{test: "test/\*/\*\.png", train: "train/\*/\*\.png"}'),
        (("train/cat/a", "val/cat/b"), "*/*/*.png", r'{train: "train/\*/\*\.png", val: "val/\*/\*\.png"}'),
        (("train/cat/a", "train/dog/b"), "**/*.png", r'{train: "train/\*/\*\.png"}'),
        (("in/Train/cat/a", "in/TEST/cat/b"), "in/**/*", r'{TEST: "in/TEST/\*/\*", Train: "in/Train/\*/\*"}'),
        (("train/cat/a", "test/cat/b", "extra/cat/c"), "**/*.png", r'{test: "test/\*/\*\.png", train: .*}'),
    ],
)
def test_splits_are_refused_as_classes_with_what_to_write(tmp_path, names, pattern, written):
    in_folders(tmp_path, *names)
    with pytest.raises(ValueError, match=rf"would be the classes, but are splits .* `pattern` .* to {written}$"):
        shards_of("image_folder", tmp_path, pattern=pattern, labels="folder")
    assert shards_of("image_folder", tmp_path, pattern=pattern, labels=None)


def test_what_the_refusal_says_to_write_works(tmp_path):
    in_folders(tmp_path, "train/cat/a", "test/dog/b")
    written = {"test": "test/*/*.png", "train": "train/*/*.png"}
    shards = shards_of("image_folder", tmp_path, pattern=written, labels="folder")
    found = [(shard.split, batch) for shard in shards for batch in shard.read(Counter())]
    assert [(split, batch.class_names, batch.labels.tolist()) for split, batch in found] == [
        ("test", ("cat", "dog"), [1]),
        ("train", ("cat", "dog"), [0]),
    ]


def test_a_class_among_others_may_be_called_train(tmp_path):
    in_folders(tmp_path, "bus/a", "train/b")
    assert read(tmp_path, pattern="*/*.png", labels="folder").class_names == ("bus", "train")
