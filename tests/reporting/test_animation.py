from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageSequence

from mdpipe.reporting.animation import (
    HATCH_COLOR,
    INK,
    LAST_MILLISECONDS,
    MASK,
    MASK_COLOR,
    MAX_FRAMES,
    MIN_FRAMES,
    NEW_BACKGROUND,
    SIZE_LIMIT,
    TEXT_WIDTH,
    image_unmasking_gif,
    text_unmasking_gif,
)
from mdpipe.reporting.images import image_grid

pytestmark = pytest.mark.slow


def unmasking(images, moments):
    """Frames and masks of images revealed in a random order, all at the last moment."""
    when = np.random.default_rng(0).random(images.shape)
    times = np.linspace(1, 0, moments)
    masked = np.stack([when < time for time in times])
    return np.broadcast_to(images, masked.shape), masked


def gif_frames(gif: bytes) -> list[np.ndarray]:
    return [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(Image.open(BytesIO(gif)))]


def hexadecimal(color: str) -> list[int]:
    return [int(color[at : at + 2], 16) for at in (1, 3, 5)]


def holds(image: np.ndarray, color: str) -> bool:
    return bool((image == hexadecimal(color)).all(axis=-1).any())


@pytest.fixture(scope="module")
def digits() -> np.ndarray:
    levels = np.random.default_rng(1).integers(0, 17, (32, 8, 8, 1))
    return (levels * 255 // 16).astype(np.uint8)


def test_images_start_hatched_and_end_as_sampled(digits):
    first, *_, last = gif_frames(image_unmasking_gif(*unmasking(digits, 65), columns=8, scale=6))
    inside = first[4:52, 4:52].reshape(-1, 3).tolist()
    assert {tuple(pixel) for pixel in inside} == {MASK_COLOR, HATCH_COLOR}
    difference = last.astype(int) - np.asarray(image_grid(digits, 8, 6)).astype(int)
    assert abs(difference).max() <= 8, "one palette for all frames may move a color a little"


def test_a_pixel_half_known_is_gray_of_what_is_known():
    frames = np.array([10, 200, 90], dtype=np.uint8).reshape(1, 1, 1, 1, 3)
    masked = np.array([False, False, True]).reshape(frames.shape)
    pixel = gif_frames(image_unmasking_gif(frames, masked, columns=1, scale=8))[0][6, 6]
    assert pixel.tolist() == [10, 200, 105]


def test_equal_frames_give_equal_bytes(digits):
    one, other = (image_unmasking_gif(*unmasking(digits, 20), columns=8, scale=4) for _ in range(2))
    assert one == other
    assert one.startswith(b"GIF89a")


def test_the_last_moment_rests(digits):
    gif = Image.open(BytesIO(image_unmasking_gif(*unmasking(digits, 30), columns=8, scale=4)))
    durations = [frame.info["duration"] for frame in ImageSequence.Iterator(gif)]
    assert durations[-1] >= LAST_MILLISECONDS
    assert max(durations[1:-1]) < LAST_MILLISECONDS / 10
    assert gif.info["loop"] == 0


def test_an_animation_of_noise_shows_fewer_moments_to_stay_small():
    noise = np.random.default_rng(0).integers(0, 256, (10, 32, 32, 3), dtype=np.uint8)
    gif = image_unmasking_gif(*unmasking(noise, 129), columns=4, scale=4)
    assert len(gif) <= SIZE_LIMIT
    assert MIN_FRAMES <= len(gif_frames(gif)) < MAX_FRAMES


WORDS = ["The", " dog", " returns", "\n", "a", " list", ".\n\n", "é", "\t", "\x00", "", "e\u0301", "ﷺ"]


def moments_of(tokens, *known):
    return [[[token if at in places else None for at, token in enumerate(tokens)]] for places in known]


def test_unmasked_text_is_marked_while_new_and_then_black():
    everything = range(len(WORDS))
    gif = text_unmasking_gif(moments_of(WORDS, [], [0, 1], [0, 1, 2], everything))
    masked, new, *_, last = gif_frames(gif)
    assert (holds(masked, MASK), holds(masked, NEW_BACKGROUND), holds(masked, INK)) == (True, False, False)
    assert (holds(new, MASK), holds(new, NEW_BACKGROUND)) == (True, True)
    assert (holds(last, MASK), holds(last, NEW_BACKGROUND), holds(last, INK)) == (False, False, True)
    assert masked.shape == last.shape


def test_letters_break_between_words_and_fit_the_page():
    letters = list("a word and another and " * 8)
    image = gif_frames(text_unmasking_gif(moments_of(letters, range(len(letters)))))[-1]
    assert image.shape[1] == TEXT_WIDTH
    assert (image[10:-10, -12:-2] == 255).all()


@pytest.mark.parametrize("tokens", [["x" * 500], ["\n"] * 5, [" "] * 400, [""], ["word "] * 900])
def test_any_text_can_be_shown(tokens):
    """A word longer than a line, nothing but line breaks, spaces or empty tokens, more than fits the page."""
    image = gif_frames(text_unmasking_gif(moments_of(tokens, [], range(len(tokens)))))[-1]
    assert image.shape[0] < 400


def test_equal_texts_give_equal_bytes():
    frames = moments_of(WORDS, [], [1], range(len(WORDS)))
    assert text_unmasking_gif(frames) == text_unmasking_gif(frames)
