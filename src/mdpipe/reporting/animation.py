"""Animations of unmasking: GIFs of samples of images and of text, from all masked to finished.

An animation shows moments of the sampling. Moments of images are frames (F, N, H, W, C) of N images; a moment of a text
sample is one text per token, None if the token is masked.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from mdpipe.reporting.images import Pixels, compose, enlarge

FIRST_MILLISECONDS = 700
STEP_MILLISECONDS = 90
LAST_MILLISECONDS = 3000

MAX_FRAMES = 48
MIN_FRAMES = 6
"""The number of frames: the maximum, or fewer if the file would be too large, but not fewer than the minimum."""
SIZE_LIMIT = 400_000
"""Largest size of a file in bytes; a README is read on phones."""

EXACT_COLORS = 8
"""Colors kept exactly: background, mask, black; a mean of similar ones would tint large areas."""
PALETTE_CELL = 8
"""Pillow looks colors up in coarse cells: it would take a color this near to an exact one in place of it."""

MASK_COLOR = (113, 122, 168)
HATCH_COLOR = (139, 148, 190)
HATCH_PERIOD = 8
"""Pixels from one diagonal stroke to the next; strokes are a quarter of it wide."""

TEXT_WIDTH = 560
"""A phone shows it at two thirds of its size, where letters are still 12 pixels high."""
TEXT_MARGIN = 22
FONT_SIZE = 19
ROW_HEIGHT = 28
BLOCK_HEIGHT = 24
MAX_ROWS = 11
"""Rows of text in the animation: text that does not fit is left out."""
SAMPLE_GAP = 12
NEWLINE_WIDTH = 8
BAR_HEIGHT = 4
"""Height of the bar at the bottom, which fills as tokens are unmasked."""

BACKGROUND = "#ffffff"
EDGE = "#d5dae1"
INK = "#1f2430"
MASK = "#e1e5f2"
NEW_INK = "#6b3500"
NEW_BACKGROUND = "#ffdc94"
BAR = "#717aa8"

Moment = Sequence[str | None]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def image_unmasking_gif(frames: Pixels, masked: npt.NDArray[np.bool_], columns: int, scale: int) -> bytes:
    """Animate the unmasking of images, in a grid as `image_grid` makes it; masked pixels are hatched.

    Args:
        frames: (F, N, H, W, C) uint8, the pixels at each moment; the values of masked ones do not matter.
        masked: (F, N, H, W, C), True for pixels that are still masked.
        columns: Images in a row.
        scale: Side of a displayed pixel.
    """

    def draw(moment: int, _before: int) -> Image.Image:
        return compose(hatch_masked(frames[moment], masked[moment], scale), columns)

    return _animate(draw, len(frames))


def hatch_masked(images: Pixels, masked: npt.NDArray[np.bool_], scale: int) -> Pixels:
    """Return enlarged images in RGB with hatched masked pixels; images and masked (N, H, W, C) as for the animation."""
    enlarged = enlarge(_mix_known_channels(images, masked), scale)
    all_masked = masked.all(axis=-1).repeat(scale, axis=1).repeat(scale, axis=2)
    hatch = np.broadcast_to(_hatch(*enlarged.shape[1:3]), enlarged.shape)
    return np.where(all_masked[..., None], hatch, enlarged)


def text_unmasking_gif(moments: Sequence[Sequence[Moment]]) -> bytes:
    """Animate the unmasking of text: words replace light blocks, each marked while it is new.

    The layout is computed once, from the last moment, so that nothing moves: a block is as wide as its text.

    Args:
        moments: `moments[moment][sample][token]` is the token's text, or None if it is masked; the last moment has no
            None, and an unmasked token keeps its text.
    """
    boxes = _lay_out([[token or "" for token in sample] for sample in moments[-1]])
    height = max((box.top for box in boxes), default=0) + ROW_HEIGHT + TEXT_MARGIN
    font = ImageFont.load_default(FONT_SIZE)

    def draw(moment: int, before: int) -> Image.Image:
        image = Image.new("RGB", (TEXT_WIDTH, height), BACKGROUND)
        canvas = ImageDraw.Draw(image)
        canvas.rectangle((0, 0, TEXT_WIDTH - 1, height - 1), outline=EDGE)
        for box in boxes:
            masked, was_masked = (moments[when][box.sample][box.token] is None for when in (moment, before))
            if masked or was_masked:
                corners = (box.left, box.top, max(box.left, box.right - 2), box.top + BLOCK_HEIGHT)
                canvas.rounded_rectangle(corners, radius=4, fill=MASK if masked else NEW_BACKGROUND)
            if not masked:
                middle = (box.left, box.top + BLOCK_HEIGHT / 2)
                canvas.text(middle, box.text, font=font, fill=NEW_INK if was_masked else INK, anchor="lm")
        unmasked = [token is not None for sample in moments[moment] for token in sample]
        bar = round(TEXT_WIDTH * sum(unmasked) / len(unmasked))
        if bar:
            canvas.rectangle((0, height - BAR_HEIGHT, bar - 1, height), fill=BAR)
        return image

    return _animate(draw, len(moments))


def _animate(draw: Callable[[int, int], Image.Image], moments: int) -> bytes:
    """Return a looping GIF of moments 0, ..., `moments` - 1, or of some spread evenly over them to stay small.

    `draw(moment, before)` gets a moment and the one shown before it. The first and the last are always shown, the last
    a second time when it is no longer new. All frames share one palette, so that a constant pixel never flickers.
    """
    count = min(MAX_FRAMES, moments)
    while True:
        chosen = np.linspace(0, moments - 1, count).round().astype(int).tolist()
        shown = [draw(moment, before) for moment, before in zip(chosen, [0, *chosen], strict=False)]
        gif = _encode_gif([*shown, draw(moments - 1, moments - 1)])
        if len(gif) <= SIZE_LIMIT or count <= MIN_FRAMES:
            return gif
        count = max(MIN_FRAMES, min(count * 3 // 4, count * SIZE_LIMIT // len(gif)))


def _encode_gif(frames: Sequence[Image.Image]) -> bytes:
    palette = _shared_palette(frames)
    first, *rest = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    buffer = BytesIO()
    durations = [FIRST_MILLISECONDS] + [STEP_MILLISECONDS] * (len(frames) - 2) + [LAST_MILLISECONDS]
    first.save(
        buffer,
        format="GIF",
        save_all=True,
        append_images=rest,
        duration=durations[-len(frames) :],
        loop=0,
        optimize=True,  # writes constant pixels as transparent, which halves the file
    )
    return buffer.getvalue()


def _shared_palette(frames: Sequence[Image.Image]) -> Image.Image:
    """Return at most 255 colors for all frames (one more is transparent); the commonest ones are exact."""
    shown = Image.fromarray(np.concatenate([np.asarray(frames[at]) for at in (0, len(frames) // 2, -1)]))
    counted = shown.getcolors(maxcolors=shown.width * shown.height) or []
    common = [color for _, color in sorted(counted, key=lambda entry: (-entry[0], entry[1]))[:EXACT_COLORS]]
    means = np.array(shown.quantize(255 - EXACT_COLORS).getpalette()).reshape(-1, 3)
    kept: list[npt.NDArray[np.int_]] = []
    for color in np.concatenate([common, means]):
        if all(abs(color - other).max() >= PALETTE_CELL for other in kept[:EXACT_COLORS]):
            kept.append(color)
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.concatenate(kept).tolist())
    return palette


def _mix_known_channels(images: Pixels, masked: npt.NDArray[np.bool_]) -> Pixels:
    """Give a masked channel the mean of its pixel's unmasked ones."""
    unmasked = ~masked
    total = np.where(unmasked, images, 0).sum(axis=-1, keepdims=True, dtype=np.int64)
    mean = total // unmasked.sum(axis=-1, keepdims=True).clip(min=1)
    return np.where(masked, mean, images).astype(np.uint8)


def _hatch(height: int, width: int) -> Pixels:
    """Return (height, width, 3): diagonal strokes on the color of the mask."""
    diagonal = np.add.outer(np.arange(height), np.arange(width)) % HATCH_PERIOD
    return np.where((diagonal < HATCH_PERIOD // 4)[..., None], HATCH_COLOR, MASK_COLOR).astype(np.uint8)


@dataclass
class _TextBox:
    """The part of a token that is on one row: its text and its box in pixels."""

    sample: int
    token: int
    row: int
    """Row within its sample."""
    text: str
    left: float
    right: float
    top: int = 0


def _lay_out(samples: Sequence[Sequence[str]]) -> list[_TextBox]:
    """Put the samples below each other, ragged right, broken between words; empty lines are left out."""
    font = ImageFont.load_default(FONT_SIZE)
    boxes: list[_TextBox] = []
    first_row = shown = 0
    for number, tokens in enumerate(samples):
        placed = [box for box in _place_text(number, tokens, font) if first_row + box.row < MAX_ROWS]
        for box in placed:
            box.top = TEXT_MARGIN + (first_row + box.row) * ROW_HEIGHT + shown * SAMPLE_GAP
            box.left, box.right = round(TEXT_MARGIN + box.left), round(TEXT_MARGIN + box.right)
        if placed:
            first_row += placed[-1].row + 1
            shown += 1
        boxes += placed
    return boxes


def _place_text(sample: int, tokens: Sequence[str], font: Font) -> list[_TextBox]:
    """Return the boxes of a sample with their rows and edges."""
    line = TEXT_WIDTH - 2 * TEXT_MARGIN
    boxes: list[_TextBox] = []
    row, left = 0, 0.0

    def place(token: int, text: str, width: float) -> None:
        nonlocal left
        if not boxes or (boxes[-1].token, boxes[-1].row) != (token, row):
            boxes.append(_TextBox(sample, token, row, "", left, left))
        left += width
        boxes[-1].text, boxes[-1].right = boxes[-1].text + text, left

    for word in _split_words(tokens):
        widths = [NEWLINE_WIDTH if text == "\n" else font.getlength(text) for _, text in word]
        visible = sum(width for width, (_, text) in zip(widths, word, strict=True) if not text.isspace())
        if left and left + visible > line:
            row, left = row + 1, 0.0
        for (token, text), width in zip(word, widths, strict=True):
            if left + width > line and not text.isspace():  # a word longer than a line
                row, left = row + 1, 0.0
            if text != "\n":
                place(token, text, width)
            elif left:
                place(token, " ", width)
                row, left = row + 1, 0.0
    return boxes


def _split_words(tokens: Sequence[str]) -> list[list[tuple[int, str]]]:
    """Return characters with their token's index, split after every space; unprintable ones become spaces."""
    words: list[list[tuple[int, str]]] = [[]]
    for number, token in enumerate(tokens):
        for character in token:
            text = character if character.isprintable() or character == "\n" else " "
            words[-1].append((number, text))
            if text.isspace():
                words.append([])
    return words
