"""The paper's U-Net for images: residual convolutions at full resolution with skip connections; no down-sampling.

With equal weights it computes what the official implementation does (google-deepmind/md4, md4/networks/unet.py), and
dropout has the same site: single elements before a block's second convolution.

Shapes: B batch, H x W x C images, D width, V vocabulary. A sub-pixel is one channel of one pixel.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from mdpipe.networks.attention import attend
from mdpipe.networks.base import Network
from mdpipe.networks.conditioning import Conditioning
from mdpipe.networks.convolution import Convolution
from mdpipe.networks.dropout import dropout, split_keys
from mdpipe.networks.group_norm import SMALL_GROUP, GroupNorm, num_groups
from mdpipe.networks.initial import init_ordinal_embedding_, init_weights, zero_init_
from mdpipe.networks.pictures import as_picture, as_sub_pixels, check_init, down_and_up


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
        init: str = "md4",
    ) -> None:
        super().__init__()
        check_init(init)
        if causal:
            raise ValueError("network.kind = unet sees every pixel at once and cannot be causal; take a transformer")
        if len(shape) != 3:
            raise ValueError(f"network.kind = unet takes pictures of shape (height, width, channels), not {shape}")
        if width % SMALL_GROUP:
            raise ValueError(f"network.width = {width} must be a multiple of {SMALL_GROUP} for a U-Net")
        self.vocabulary = vocabulary
        self.shape = shape
        self.length = math.prod(shape)
        self.width = width
        self.dropout = dropout
        self.init = init
        channels = shape[2]
        self.embedding = nn.Embedding(vocabulary + 1, width)
        self.conditioning = Conditioning(width, time_conditioning=time_conditioning, num_classes=classes)
        is_conditioned = not self.conditioning.is_empty
        self.input = Convolution(channels * width, width)
        self.down = nn.ModuleList(ResidualBlock(width, width, is_conditioned, dropout) for _ in range(blocks))
        self.middle = nn.ModuleList(ResidualBlock(width, width, is_conditioned, dropout) for _ in range(2))
        self.attention = PixelAttention(width)
        self.up = nn.ModuleList(ResidualBlock(2 * width, width, is_conditioned, dropout) for _ in range(blocks + 1))
        self.norm = GroupNorm(num_groups(width), width)
        self.output = Convolution(width, channels * vocabulary)
        self.head = nn.Identity()

    def initialise(self, generator: torch.Generator) -> None:
        """Initialize the weights as the official implementation does; no residual block adds anything at first.

        With `init: ordinal` near values start near each other, and attention adds nothing at first.
        """
        init_weights(self, generator)
        if self.init == "ordinal":
            init_ordinal_embedding_(self.embedding)
            zero_init_(self.attention.output)
        blocks = [*self.down, *self.middle, *self.up]
        zero_init_(self.output, *(block.output for block in blocks), *(block.modulation for block in blocks))

    def forward(
        self, tokens: Tensor, time: Tensor, condition: Tensor | None = None, dropout_keys: Tensor | None = None
    ) -> Tensor:
        """Compute logits (B, H W C, V) of every sub-pixel.

        Args:
            tokens: (B, H W C) int64 in the order (H, W, C), at most V, which is the mask.
            time: (B,), read if the network is time-conditioned.
            condition: (B,) int64 class labels, the number of classes meaning "no class"; None if there is none at all.
            dropout_keys: (B, 2) int64, or None for no dropout.

        Raises:
            ValueError: a condition that `Conditioning` refuses.
        """
        cond = self.conditioning(tokens, time, condition)
        sites = len(self.down) + len(self.middle) + len(self.up)
        keys = iter(split_keys(dropout_keys if self.dropout else None, sites))
        before, after = self.middle

        def middle(x: Tensor) -> Tensor:
            attended: Tensor = self.attention(before(x, cond, next(keys)))
            left: Tensor = after(attended, cond, next(keys))
            return left

        x = self.input(as_picture(self.embedding(tokens), self.shape))
        x = down_and_up(x, self.down, middle, self.up, cond, keys)
        return as_sub_pixels(self.output(functional.silu(self.norm(x))), self.vocabulary)


class ResidualBlock(nn.Module):
    """shortcut(x) + output(drop(silu(norm(input(silu(norm(x))))))), both convolutions 3 x 3.

    If conditioned, a linear function of the conditioning vector, nothing at first, is added before the second norm.
    """

    def __init__(self, channels: int, width: int, is_conditioned: bool, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.first_norm = GroupNorm(num_groups(width), channels)
        self.input = Convolution(channels, width)
        self.second_norm = GroupNorm(num_groups(width), width)
        self.output = Convolution(width, width)
        self.shortcut = nn.Conv2d(channels, width, 1) if channels != width else nn.Identity()
        self.modulation = nn.Linear(width, width, bias=False) if is_conditioned else None

    def forward(self, x: Tensor, cond: Tensor | None, keys: Tensor | None) -> Tensor:
        """(B, channels, H, W) to (B, D, H, W); `cond` is (B, D) or None, `keys` (B, 2) or None."""
        inner = self.input(functional.silu(self.first_norm(x)))
        if self.modulation is not None:
            inner = inner + self.modulation(cond)[:, :, None, None]
        inner = functional.silu(self.second_norm(inner))
        # Numbered with the channels last, as they are in memory.
        inner = dropout(inner.permute(0, 2, 3, 1), keys, self.dropout).permute(0, 3, 1, 2)
        result: Tensor = self.shortcut(x) + self.output(inner)
        return result


class PixelAttention(nn.Module):
    """x + output(attention(norm(x))): one head, every pixel to every pixel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = GroupNorm(num_groups(width), width)
        self.input = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, H, W) to the same."""
        pixels_BPD = self.norm(x).permute(0, 2, 3, 1).flatten(1, 2)
        query, key, value = self.input(pixels_BPD)[:, None].chunk(3, dim=-1)
        mixed = attend(query, key, value)[:, 0]
        update: Tensor = self.output(mixed).view(len(x), *x.shape[2:], -1)
        return x + update.permute(0, 3, 1, 2)
