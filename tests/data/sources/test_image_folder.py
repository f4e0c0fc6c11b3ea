"""Picture files of the user's own."""

import numpy as np
import pytest
from PIL import Image

from mdpipe.data.sources import read_source

RANDOM = np.random.default_rng(0)
RGB = RANDOM.integers(0, 256, (3, 5, 4, 3), dtype=np.uint8)


def read(path):
    return read_source("image_folder", path, pattern="*.png")


def save(path, pixels):
    Image.fromarray(pixels).save(path)


def test_pictures_come_in_the_order_of_their_names(tmp_path):
    for name, pixels in zip(("b", "c", "a"), RGB, strict=True):
        save(tmp_path / f"{name}.png", pixels)
    pictures = read(tmp_path)
    assert np.array_equal(pictures.images, RGB[[2, 0, 1]])
    assert pictures.groups.tolist() == [0, 1, 2]
    assert pictures.maximum == 255


def test_grey_pictures_have_one_channel(tmp_path):
    save(tmp_path / "a.png", RGB[0, :, :, 0])
    assert np.array_equal(read(tmp_path).images, RGB[:1, :, :, :1])


@pytest.mark.parametrize("other", [RGB[0, :4], RGB[0, :, :, 0]])
def test_pictures_of_another_size_or_mode_are_named_with_the_first(tmp_path, other):
    save(tmp_path / "a.png", RGB[0])
    save(tmp_path / "b.png", other)
    with pytest.raises(ValueError, match=r"b\.png is 4 x \d (RGB|grey) but .*a\.png is 4 x 5 RGB; all pictures"):
        read(tmp_path)


@pytest.mark.parametrize("mode", ["1", "P", "RGBA", "I;16", "CMYK"])
def test_other_modes_are_refused_with_the_cure(tmp_path, mode):
    image = Image.new(mode, (4, 4))
    image.save(tmp_path / "a.png", format="TIFF" if mode == "CMYK" else "PNG")
    with pytest.raises(ValueError, match=rf"a\.png has the mode {mode}, neither 8-bit grey .*convert"):
        read(tmp_path)


@pytest.mark.parametrize("kept", [0, 20, 40, -30])
def test_a_truncated_picture_is_named(tmp_path, kept):
    path = tmp_path / "a.png"
    save(path, RANDOM.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"a\.png is truncated or no picture .*; replace or remove it"):
        read(tmp_path)


def test_a_folder_without_pictures_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no file in the folder .* fits '\*\.png'"):
        read(tmp_path)


def test_the_sub_folder_is_the_class_however_deep_the_picture_lies(tmp_path):
    for name in ("dog/a", "cat/z", "cat/deep/dog/b", "Zebra/c"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        save(tmp_path / f"{name}.png", RGB[0])
    pictures = read_source("image_folder", tmp_path, pattern="**/*.png", labels="folder")
    assert pictures.class_names == ("Zebra", "cat", "dog")
    assert pictures.labels.dtype == np.int64
    assert [pictures.class_names[label] for label in pictures.labels] == ["Zebra", "cat", "cat", "dog"]
    assert read_source("image_folder", tmp_path, pattern="**/*.png", labels=None).labels is None


def test_a_picture_in_no_sub_folder_is_named_with_the_cure(tmp_path):
    (tmp_path / "cat").mkdir()
    for name in ("cat/a.png", "b.png"):
        save(tmp_path / name, RGB[0])
    with pytest.raises(
        ValueError, match=r"b\.png in .* lies in no sub-folder .*`pattern` .* '\*/\*'.* `labels` to null"
    ):
        read_source("image_folder", tmp_path, pattern="**/*.png", labels="folder")
