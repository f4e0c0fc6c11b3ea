"""The U-Net for pictures: residual convolutions at full resolution, joined by skip connections; no down-sampling.

Letters: B examples, H x W x C pictures, D width, V vocabulary. A sub-pixel is one channel of one pixel.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from mdpipe.networks.attention import attend
from mdpipe.networks.base import Network
from mdpipe.networks.convolution import Convolution
from mdpipe.networks.dropout import kept_channels
from mdpipe.networks.group_norm import GroupNorm
from mdpipe.networks.initial import order, spread, zero
from mdpipe.networks.pictures import GROUP, as_picture, as_sub_pixels, down_and_up
from mdpipe.networks.time import TimeEmbedding
from mdpipe.networks.told import ClassEmbedding, told


class UNet(Network):
    """A denoiser for pictures.

    Every sub-pixel's value is embedded and a pixel's embeddings are concatenated. `blocks` residual blocks go down, one
    attends in the middle, `blocks` + 1 go up, each of which also sees what a block on the way down was given or gave.
    The last convolution gives the logits of all sub-pixels of a pixel: they are the hidden states; the head is nothing.

    Raises:
        ValueError: the shape is not one of a picture, the width does not divide into groups, or it is to be causal.
    """

    def __init__(
        self,
        vocabulary: int,
        shape: tuple[int, ...],
        *,
        width: int,
        blocks: int,
        time_conditioning: bool,
        dropout: float,
        classes: int,
        causal: bool,
    ) -> None:
        super().__init__()
        if causal:
            raise ValueError("network.kind = unet sees every pixel at once and cannot be causal; take a transformer")
        if len(shape) != 3:
            raise ValueError(f"network.kind = unet takes pictures of shape (height, width, channels), not {shape}")
        if width % GROUP:
            raise ValueError(f"network.width = {width} must be a multiple of {GROUP} for a U-Net")
        self.vocabulary = vocabulary
        self.shape = shape
        self.length = math.prod(shape)
        self.width = width
        self.dropout = dropout
        channels = shape[2]
        self.embedding = nn.Embedding(vocabulary + 1, width)
        self.time = TimeEmbedding(width) if time_conditioning else None
        self.classes = ClassEmbedding(classes, width) if classes else None
        modulated = time_conditioning or classes > 0
        self.input = Convolution(channels * width, width)
        self.down = nn.ModuleList(ResidualBlock(width, width, modulated) for _ in range(blocks))
        self.middle = nn.ModuleList(ResidualBlock(width, width, modulated) for _ in range(2))
        self.attention = PixelAttention(width)
        self.up = nn.ModuleList(ResidualBlock(2 * width, width, modulated) for _ in range(blocks + 1))
        self.norm = GroupNorm(width // GROUP, width)
        self.output = Convolution(width, channels * vocabulary)
        self.head = nn.Identity()

    @property
    def dropout_channels(self) -> int:
        """Uniforms an example that dropout takes: one a channel in every residual block."""
        return (len(self.down) + len(self.middle) + len(self.up)) * self.width if self.dropout else 0

    def initialise(self, generator: torch.Generator) -> None:
        """Set the weights. Every residual block and the attention add nothing at first; near values look alike."""
        spread(self, generator)
        order(self.embedding)
        blocks = [*self.down, *self.middle, *self.up]
        zero(self.output, self.attention.output, *(block.output for block in blocks))
        zero(*(block.modulation for block in blocks))

    def forward(
        self, tokens: Tensor, time: Tensor, condition: Tensor | None = None, dropout: Tensor | None = None
    ) -> Tensor:
        """Logits (B, H W C, V), of every sub-pixel.

        Args:
            tokens: (B, H W C) int64 in the order (H, W, C), at most V, which is the mask.
            time: (B,), read if the network is time-conditioned.
            condition: (B,) int64 class labels, the number of classes meaning "no class"; None if there is none at all.
            dropout: (B, dropout_channels) in [0, 1), or None for no dropout.

        Raises:
            ValueError: a condition that `told` refuses.
        """
        modulator = told(self.time, self.classes, tokens, time, condition)
        kept = iter(kept_channels(dropout, self.dropout, len(self.down) + len(self.middle) + len(self.up)))
        before, after = self.middle

        def middle(x: Tensor) -> Tensor:
            attended: Tensor = self.attention(before(x, modulator, next(kept)))
            left: Tensor = after(attended, modulator, next(kept))
            return left

        x = self.input(as_picture(self.embedding(tokens), self.shape))
        x = down_and_up(x, self.down, middle, self.up, modulator, kept)
        return as_sub_pixels(self.output(functional.silu(self.norm(x))), self.vocabulary)


class ResidualBlock(nn.Module):
    """shortcut(x) + output(drop(silu(norm(input(silu(norm(x))))))), both convolutions 3 x 3.

    Where the network is told something, that is added before the second norm, nothing at first.
    """

    def __init__(self, channels: int, width: int, modulated: bool) -> None:
        super().__init__()
        self.first_norm = GroupNorm(width // GROUP, channels)
        self.input = Convolution(channels, width)
        self.second_norm = GroupNorm(width // GROUP, width)
        self.output = Convolution(width, width)
        self.shortcut = nn.Conv2d(channels, width, 1) if channels != width else nn.Identity()
        self.modulation = nn.Linear(width, width, bias=False) if modulated else None

    def forward(self, x: Tensor, modulator: Tensor | None, kept: Tensor | None) -> Tensor:
        """(B, channels, H, W) to (B, D, H, W); `modulator` is (B, D) or None, `kept` (B, D) or None."""
        inner = self.input(functional.silu(self.first_norm(x)))
        if self.modulation is not None:
            inner = inner + self.modulation(modulator)[:, :, None, None]
        inner = functional.silu(self.second_norm(inner))
        if kept is not None:
            inner = inner * kept[:, :, None, None]
        result: Tensor = self.shortcut(x) + self.output(inner)
        return result


class PixelAttention(nn.Module):
    """x + output(attention(norm(x))): one head, every pixel to every pixel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = GroupNorm(width // GROUP, width)
        self.input = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, H, W) to the same."""
        pixels_BPD = self.norm(x).permute(0, 2, 3, 1).flatten(1, 2)
        query, key, value = self.input(pixels_BPD)[:, None].chunk(3, dim=-1)
        mixed = attend(query, key, value)[:, 0]
        update: Tensor = self.output(mixed).view(len(x), *x.shape[2:], -1)
        return x + update.permute(0, 3, 1, 2)
