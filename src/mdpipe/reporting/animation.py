"""Unmasking, animated: a GIF of samples of images as they come out of the mask.

Frames are (F, N, H, W, C): F moments of the sampling, from all masked to finished, of N images.
"""

from collections.abc import Callable, Sequence
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from mdpipe.reporting.pictures import Pixels, compose, enlarged

FIRST_MILLISECONDS = 700
STEP_MILLISECONDS = 90
LAST_MILLISECONDS = 3000

MOST_MOMENTS = 48
FEWEST_MOMENTS = 6
"""How many moments are shown: the most, or fewer where the file would be too large, but not fewer than this."""
SIZE_LIMIT = 400_000
"""Bytes; a README is read on phones."""

COMMON_COLOURS = 8
"""Colours kept exactly: the ground, the mask, black; a mean of similar ones would tint large areas."""
PALETTE_CELL = 8
"""Pillow looks colours up in coarse cells: one this near to a common colour would be taken in its place."""

MASK_COLOUR = (113, 122, 168)
HATCH_COLOUR = (139, 148, 190)
HATCH_PERIOD = 8
"""Pixels from one diagonal stroke to the next; strokes are a quarter of it wide."""


def image_unmasking_gif(frames: Pixels, masked: npt.NDArray[np.bool_], columns: int, scale: int) -> bytes:
    """Animate images coming out of the mask, in a grid as `image_grid` makes it; masked pixels are hatched.

    Args:
        frames: (F, N, H, W, C) uint8, the pixels at each moment; what stands at masked ones does not matter.
        masked: (F, N, H, W, C), which of them are still masked.
        columns: images in a row.
        scale: side of a shown pixel.

    Raises:
        ValueError: the two arrays' shapes differ or are not as above.
    """
    if frames.ndim != 5 or frames.shape != masked.shape or not len(frames):
        raise ValueError(f"frames and masked should both be (F, N, H, W, C), not {frames.shape} and {masked.shape}")

    def draw(moment: int, _before: int) -> Image.Image:
        images = enlarged(_half_known(frames[moment], masked[moment]), scale)
        whole = masked[moment].all(axis=-1).repeat(scale, axis=1).repeat(scale, axis=2)
        hatch = np.broadcast_to(_hatch(*images.shape[1:3]), images.shape)
        return compose(np.where(whole[..., None], hatch, images), columns)

    return animated(draw, len(frames))


def animated(draw: Callable[[int, int], Image.Image], moments: int) -> bytes:
    """A looping GIF of moments 0, ..., `moments` - 1, or of some spread evenly over them to stay small.

    `draw(moment, before)` gets a moment and the one shown before it. The first and the last are always shown, the last
    once more when it is no longer new. All frames share one palette, so that a still pixel never flickers.
    """
    count = min(MOST_MOMENTS, moments)
    while True:
        chosen = np.linspace(0, moments - 1, count).round().astype(int).tolist()
        shown = [draw(moment, before) for moment, before in zip(chosen, [0, *chosen], strict=False)]
        gif = _gif([*shown, draw(moments - 1, moments - 1)])
        if len(gif) <= SIZE_LIMIT or count <= FEWEST_MOMENTS:
            return gif
        count = max(FEWEST_MOMENTS, min(count * 3 // 4, count * SIZE_LIMIT // len(gif)))


def _gif(frames: Sequence[Image.Image]) -> bytes:
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
        optimize=True,  # writes pixels that stay as see-through, which halves the file
    )
    return buffer.getvalue()


def _shared_palette(frames: Sequence[Image.Image]) -> Image.Image:
    """At most 255 colours for all frames (one more means see-through); the commonest ones are there exactly."""
    shown = Image.fromarray(np.concatenate([np.asarray(frames[at]) for at in (0, len(frames) // 2, -1)]))
    counted = shown.getcolors(maxcolors=shown.width * shown.height) or []
    common = [colour for _, colour in sorted(counted, key=lambda entry: (-entry[0], entry[1]))[:COMMON_COLOURS]]
    means = np.array(shown.quantize(255 - COMMON_COLOURS).getpalette()).reshape(-1, 3)
    kept: list[npt.NDArray[np.int_]] = []
    for colour in np.concatenate([common, means]):
        if all(abs(colour - other).max() >= PALETTE_CELL for other in kept[:COMMON_COLOURS]):
            kept.append(colour)
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.concatenate(kept).tolist())
    return palette


def _half_known(images: Pixels, masked: npt.NDArray[np.bool_]) -> Pixels:
    """The images, a masked channel being shown as the mean of its pixel's known ones."""
    known = ~masked
    total = np.where(known, images, 0).sum(axis=-1, keepdims=True, dtype=np.int64)
    mean = total // known.sum(axis=-1, keepdims=True).clip(min=1)
    return np.where(masked, mean, images).astype(np.uint8)


def _hatch(height: int, width: int) -> Pixels:
    """(height, width, 3): diagonal strokes on the mask's colour."""
    diagonal = np.add.outer(np.arange(height), np.arange(width)) % HATCH_PERIOD
    return np.where((diagonal < HATCH_PERIOD // 4)[..., None], HATCH_COLOUR, MASK_COLOUR).astype(np.uint8)
