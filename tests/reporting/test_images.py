from io import BytesIO

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mdpipe.reporting.images import (
    BACKGROUND,
    GAP,
    MAX_COLUMNS,
    class_by_class,
    contact_sheet,
    image_grid,
    save_png,
    sheet_columns,
)

SIZES = st.integers(1, 5)


@given(count=st.integers(1, 9), height=SIZES, width=SIZES, channels=st.sampled_from([1, 3]), columns=SIZES, scale=SIZES)
def test_every_pixel_is_in_its_images_place_and_no_other(count, height, width, channels, columns, scale):
    images = np.random.default_rng(0).integers(0, 200, (count, height, width, channels), dtype=np.uint8)
    shown = np.asarray(image_grid(images, columns, scale))
    covered = np.zeros(shown.shape[:2], dtype=bool)
    for index, image in enumerate(images):
        row, column = divmod(index, min(columns, count))
        for y in range(height * scale):
            top = GAP + row * (height * scale + GAP) + y
            left = GAP + column * (width * scale + GAP)
            expected = np.broadcast_to(image[y // scale], (width, 3)).repeat(scale, axis=0)
            np.testing.assert_array_equal(shown[top, left : left + width * scale], expected)
            covered[top, left : left + width * scale] = True
    assert (shown[~covered] == BACKGROUND).all()


def test_a_png_has_the_pixels_and_nothing_else(tmp_path):
    image = image_grid(np.arange(64, dtype=np.uint8).reshape(4, 4, 4, 1), columns=2, scale=3)
    image.info["Software"] = "a program"
    for name in ("one.png", "other.png"):
        save_png(image, tmp_path / name)
    content = (tmp_path / "one.png").read_bytes()
    assert content == (tmp_path / "other.png").read_bytes()
    opened = Image.open(BytesIO(content))
    np.testing.assert_array_equal(np.asarray(opened), np.asarray(image))
    assert opened.info == {}
    for chunk in (b"tEXt", b"iTXt", b"zTXt", b"tIME"):
        assert chunk not in content


def test_a_sheet_has_a_column_for_each_class_if_they_fit():
    assert [sheet_columns(classes) for classes in (0, 1, 2, 10, MAX_COLUMNS, 1000)] == [8, 8, 2, 10, 16, 8]
    images = np.arange(12, dtype=np.uint8).reshape(12, 1, 1, 1).repeat(4, axis=1).repeat(4, axis=2)
    sheet = np.asarray(contact_sheet(images, 3))
    cell = 64 + GAP
    assert sheet.shape[:2] == (4 * cell + GAP, 3 * cell + GAP)
    assert sheet[GAP + cell, GAP + 2 * cell, 0] == 5


def test_examples_class_by_class_take_turns():
    labels = np.array([2, 2, 0, 1, 2, 0, 2])
    order = class_by_class(labels, 7)
    assert order.tolist() == [2, 3, 0, 5, 1, 4, 6]
    assert labels[order].tolist() == [0, 1, 2, 0, 2, 2, 2]
    assert class_by_class(labels, 4).tolist() == [2, 3, 0, 5]
