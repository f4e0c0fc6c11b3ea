"""Unmasking of text, animated: words appear out of light blocks, each marked while it is new.

A moment of a sample is one text a token, None where the token is masked. The page is set once, from the last moment, so
that nothing moves: a block is as wide as what will stand there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from PIL import Image, ImageDraw, ImageFont

from mdpipe.reporting.animation import animated

Moment = Sequence[str | None]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

WIDTH = 760
MARGIN = 22
FONT_SIZE = 19
ROW_HEIGHT = 28
BLOCK_HEIGHT = 24
MOST_ROWS = 8
"""Rows of text on the page: what does not fit is left out."""
SAMPLE_GAP = 12
NEWLINE_WIDTH = 8
BAR_HEIGHT = 4
"""Height of the bar at the foot that fills as tokens become known."""

GROUND = "#ffffff"
EDGE = "#d5dae1"
INK = "#1f2430"
MASK = "#e1e5f2"
NEW_INK = "#6b3500"
NEW_GROUND = "#ffdc94"
BAR = "#717aa8"


@dataclass(frozen=True)
class Piece:
    """What stands of one token on one row: its text and its box in pixels."""

    sample: int
    token: int
    text: str
    left: int
    top: int
    right: int


def text_unmasking_gif(frames: Sequence[Sequence[Moment]]) -> bytes:
    """Animate samples of text coming out of the mask.

    Args:
        frames: frames[moment][sample][token] is the token's text, or None where it is masked; the last moment has no
            None, and a token that has a text keeps it.

    Raises:
        ValueError: there is nothing to show, the last moment has masked tokens, or moments differ in their tokens.
    """
    pieces = _page(_finished(frames))
    height = max((piece.top for piece in pieces), default=0) + ROW_HEIGHT + MARGIN
    font = ImageFont.load_default(FONT_SIZE)

    def draw(moment: int, before: int) -> Image.Image:
        image = Image.new("RGB", (WIDTH, height), GROUND)
        canvas = ImageDraw.Draw(image)
        canvas.rectangle((0, 0, WIDTH - 1, height - 1), outline=EDGE)
        for piece in pieces:
            masked, was_masked = (frames[when][piece.sample][piece.token] is None for when in (moment, before))
            if masked or was_masked:
                box = (piece.left, piece.top, max(piece.left, piece.right - 2), piece.top + BLOCK_HEIGHT)
                canvas.rounded_rectangle(box, radius=4, fill=MASK if masked else NEW_GROUND)
            if not masked:
                middle = (piece.left, piece.top + BLOCK_HEIGHT / 2)
                canvas.text(middle, piece.text, font=font, fill=NEW_INK if was_masked else INK, anchor="lm")
        known = [token is not None for sample in frames[moment] for token in sample]
        bar = round(WIDTH * sum(known) / len(known))
        if bar:
            canvas.rectangle((0, height - BAR_HEIGHT, bar - 1, height), fill=BAR)
        return image

    return animated(draw, len(frames))


def _finished(frames: Sequence[Sequence[Moment]]) -> list[list[str]]:
    if not frames or not any(frames[-1]):
        raise ValueError("there is no text to animate: the last moment is empty")
    lengths = [[len(sample) for sample in moment] for moment in frames]
    if any(of_moment != lengths[-1] for of_moment in lengths):
        raise ValueError("all moments must have the same samples with the same number of tokens")
    finished = [[token for token in sample if token is not None] for sample in frames[-1]]
    if [len(sample) for sample in finished] != lengths[-1]:
        raise ValueError("the last moment must be the finished text: it has masked tokens")
    return finished


def _page(samples: Sequence[Sequence[str]]) -> list[Piece]:
    """Set the samples one below the other, ragged right, broken between words; empty lines are left out."""
    font = ImageFont.load_default(FONT_SIZE)
    pieces: list[Piece] = []
    first_row = shown = 0
    for number, tokens in enumerate(samples):
        placed = [glyph for glyph in _glyphs(tokens, font) if first_row + glyph.row < MOST_ROWS]
        for (row, token), run in groupby(placed, key=lambda glyph: (glyph.row, glyph.token)):
            glyphs = list(run)
            text = "".join(glyph.text for glyph in glyphs)
            top = MARGIN + (first_row + row) * ROW_HEIGHT + shown * SAMPLE_GAP
            left, right = MARGIN + glyphs[0].left, MARGIN + glyphs[-1].left + glyphs[-1].width
            pieces.append(Piece(number, token, text, round(left), top, round(right)))
        if placed:
            first_row += placed[-1].row + 1
            shown += 1
    return pieces


@dataclass(frozen=True)
class _Glyph:
    token: int
    text: str
    row: int
    left: float
    width: float


def _glyphs(tokens: Sequence[str], font: Font) -> list[_Glyph]:
    """Every character of a sample with its place, the first at row 0."""
    line = WIDTH - 2 * MARGIN
    placed: list[_Glyph] = []
    row, left = 0, 0.0
    for word in _words(tokens):
        widths = [NEWLINE_WIDTH if text == "\n" else font.getlength(text) for _, text in word]
        visible = sum(width for width, (_, text) in zip(widths, word, strict=True) if not text.isspace())
        if left and left + visible > line:
            row, left = row + 1, 0.0
        for (token, text), width in zip(word, widths, strict=True):
            if left + width > line and not text.isspace():  # a word longer than a line
                row, left = row + 1, 0.0
            if text != "\n":
                placed.append(_Glyph(token, text, row, left, width))
                left += width
            elif left:
                placed.append(_Glyph(token, " ", row, left, width))
                row, left = row + 1, 0.0
    return placed


def _words(tokens: Sequence[str]) -> list[list[tuple[int, str]]]:
    """Characters with their token's number, cut after every space; what cannot be printed becomes a space."""
    words: list[list[tuple[int, str]]] = [[]]
    for number, token in enumerate(tokens):
        for character in token:
            text = character if character.isprintable() or character == "\n" else " "
            words[-1].append((number, text))
            if text.isspace():
                words.append([])
    return words
