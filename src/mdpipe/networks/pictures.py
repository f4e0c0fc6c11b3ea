"""What the networks for pictures share: from sub-pixels to feature maps and back, down one side and up the other.

Letters: B examples, H x W x C pictures, D width, V vocabulary. A sub-pixel is one channel of one pixel.
"""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

GROUP = 4
"""Channels that a group norm of width D takes together."""


def as_picture(embedded: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Embedded sub-pixels (B, H W C, D) as feature maps (B, C D, H, W): a pixel's embeddings are concatenated.

    Channels stay last in memory, from here to `as_sub_pixels`, so that neither needs a copy.
    """
    return embedded.view(len(embedded), *shape[:2], -1).permute(0, 3, 1, 2)


def as_sub_pixels(x: Tensor, vocabulary: int) -> Tensor:
    """Feature maps (B, C V, H, W) as logits (B, H W C, V) of sub-pixels."""
    return x.permute(0, 2, 3, 1).reshape(len(x), -1, vocabulary)


def down_and_up(
    x: Tensor,
    down: Iterable[nn.Module],
    middle: Callable[[Tensor], Tensor],
    up: Iterable[nn.Module],
    modulator: Tensor | None,
    kept: Iterator[Tensor | None],
) -> Tensor:
    """Through all blocks, (B, D, H, W) to the same; each block up also sees what one down was given or gave.

    Args:
        x: what the first block down is given.
        down: blocks that take feature maps, the modulator and what dropout keeps.
        middle: what comes between.
        up: one more than down; they take twice the channels.
        modulator: what the network is told, (B, D), or None.
        kept: for each block in turn (B, D), or None.
    """
    skips = [x]
    for block in down:
        x = block(x, modulator, next(kept))
        skips.append(x)
    x = middle(x)
    for block in up:
        x = block(torch.cat([x, skips.pop()], dim=1), modulator, next(kept))
    return x
