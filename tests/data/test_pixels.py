"""Quantized pixels and tiles."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mdpipe.data.pixels import dequantize, quantize, tile, to_images

maxima = st.sampled_from([1, 16, 255])


@given(maximum=maxima, data=st.data())
def test_quantizing_is_the_floor_of_the_scaled_value(maximum, data):
    levels = data.draw(st.integers(2, maximum + 1))
    values = np.arange(maximum + 1, dtype=np.uint8)
    ids = quantize(values, maximum, levels)
    assert ids.tolist() == [value * levels // (maximum + 1) for value in range(maximum + 1)]
    assert set(ids.tolist()) == set(range(levels))


@pytest.mark.parametrize("maximum", [16, 255])
def test_all_levels_change_nothing(maximum):
    values = np.arange(maximum + 1, dtype=np.uint8)
    assert np.array_equal(quantize(values, maximum, maximum + 1), values)


@given(levels=st.integers(2, 256))
def test_shown_levels_run_evenly_from_black_to_white(levels):
    gray = dequantize(np.arange(levels), levels)
    assert gray.dtype == np.uint8
    above = gray - np.linspace(0, 255, levels)
    assert above.min() > -1e-9
    assert above.max() < 1
    assert gray[0] == 0
    assert gray[-1] == 255


def test_levels_survive_showing_and_quantizing():
    """An image of ours, read again, has the levels it was made of, whatever their number."""
    for levels in range(2, 257):
        ids = np.arange(levels)
        assert np.array_equal(quantize(dequantize(ids, levels), 255, levels), ids), levels


@pytest.mark.parametrize(("maximum", "levels"), [(16, 18), (16, 1), (255, 257)])
def test_more_levels_than_values_are_refused(maximum, levels):
    with pytest.raises(ValueError, match=rf"tokenizer\.levels = {levels} .* {maximum + 1}"):
        quantize(np.zeros(3, np.uint8), maximum, levels)


def test_a_pixel_above_the_maximum_is_refused():
    with pytest.raises(ValueError, match=r"value 17, above .* 16"):
        quantize(np.array([17], np.uint8), 16, 17)


@pytest.mark.parametrize("ids", [[-1], [4]])
def test_ids_that_are_no_level_are_refused(ids):
    with pytest.raises(ValueError, match="not among 4 levels"):
        dequantize(np.array(ids), 4)


@given(images=arrays.arrays(np.uint8, st.tuples(*map(st.integers, (1, 1, 1, 1, 1), (2, 3, 4, 4, 3)))))
def test_tokens_of_all_levels_become_the_images_they_are_from(images):
    frames, count, *shape = images.shape
    shown = to_images(images.reshape(frames, count, -1), 256, tuple(shape))
    assert np.array_equal(shown, images)


@given(
    images=arrays.arrays(np.uint8, st.tuples(*map(st.integers, (1, 3, 3, 1), (3, 8, 8, 3)))),
    size=st.integers(1, 3),
    stride=st.integers(1, 4),
)
def test_tiles_are_the_squares_of_the_images_in_reading_order(images, size, stride):
    _, height, width, _ = images.shape
    expected = [
        image[top : top + size, left : left + size]
        for image in images
        for top in range(0, height - size + 1, stride)
        for left in range(0, width - size + 1, stride)
    ]
    assert np.array_equal(tile(images, size, stride), np.stack(expected))


def test_tiles_larger_than_the_image_are_refused():
    with pytest.raises(ValueError, match="tiles of 9 x 9 pixels do not fit images of 8 x 12; lower `image_size`"):
        tile(np.zeros((1, 8, 12, 1), np.uint8), 9, 1)


@pytest.mark.parametrize(("size", "stride"), [(0, 1), (1, 0)])
def test_tiles_of_no_size_or_stride_are_refused(size, stride):
    with pytest.raises(ValueError, match="must be positive"):
        tile(np.zeros((1, 8, 8, 1), np.uint8), size, stride)
