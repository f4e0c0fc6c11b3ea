"""The U-ViT for larger pictures: the U-Net's two sides, with a transformer over patches in the middle.

Everything is told the time and the class by norms whose scale and shift depend on them.

Letters: B examples, H x W x C pictures, D width, V vocabulary, P patches.
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
from mdpipe.networks.transformer import GatedMLP

PATCH = 2
"""Rows and columns of a patch."""


class UViT(Network):
    """A denoiser for pictures of even height and width.

    As in the U-Net, `blocks` residual blocks go down and `blocks` + 1 go up at full resolution, each of which also sees
    what a block on the way down was given or gave. In between, patches of 2 x 2 pixels go through `layers` layers of
    attention of width `middle_width`. The last convolution gives the logits of all sub-pixels; the head is nothing.

    Raises:
        ValueError: the shape is not one of a picture with even sides, a width does not divide, or it is to be causal.
    """

    def __init__(
        self,
        vocabulary: int,
        shape: tuple[int, ...],
        *,
        width: int,
        blocks: int,
        middle_width: int,
        layers: int,
        heads: int,
        time_conditioning: bool,
        dropout: float,
        classes: int,
        causal: bool,
    ) -> None:
        super().__init__()
        if causal:
            raise ValueError("network.kind = uvit sees every pixel at once and cannot be causal; take a transformer")
        if len(shape) != 3 or shape[0] % PATCH or shape[1] % PATCH:
            raise ValueError(f"network.kind = uvit takes pictures (height, width, channels) of even size, not {shape}")
        if width % GROUP:
            raise ValueError(f"network.width = {width} must be a multiple of {GROUP} for a U-ViT")
        if middle_width % heads:
            raise ValueError(f"network.heads = {heads} does not divide network.middle_width = {middle_width}")
        self.vocabulary = vocabulary
        self.shape = shape
        self.length = math.prod(shape)
        self.width = width
        self.dropout = dropout
        height, breadth, channels = shape
        self.embedding = nn.Embedding(vocabulary + 1, width)
        self.time = TimeEmbedding(width) if time_conditioning else None
        self.classes = ClassEmbedding(classes, width) if classes else None
        told_width = width if time_conditioning or classes else None
        self.input = Convolution(channels * width, width)
        self.down = nn.ModuleList(ResidualBlock(width, width, told_width) for _ in range(blocks))
        self.patches = nn.Linear(PATCH**2 * width, middle_width)
        self.positions = nn.Parameter(torch.empty(height * breadth // PATCH**2, middle_width))
        self.middle = nn.ModuleList(Layer(middle_width, heads, told_width) for _ in range(layers))
        self.middle_norm = ToldNorm(middle_width, told_width)
        self.pixels = nn.Linear(middle_width, PATCH**2 * width)
        self.up = nn.ModuleList(ResidualBlock(2 * width, width, told_width) for _ in range(blocks + 1))
        self.norm = ToldNorm(width, told_width, grouped=True)
        self.output = Convolution(width, channels * vocabulary)
        self.head = nn.Identity()

    @property
    def dropout_channels(self) -> int:
        """Uniforms an example that dropout takes: one a channel in every residual block."""
        return (len(self.down) + len(self.up)) * self.width if self.dropout else 0

    def initialise(self, generator: torch.Generator) -> None:
        """Set the weights. Blocks, layers and the middle as a whole add nothing at first; near values look alike."""
        spread(self, generator)
        order(self.embedding)
        with torch.no_grad():
            self.positions.normal_(0, self.positions.shape[1] ** -0.5, generator=generator)
        zero(self.output, self.pixels, *(block.output for block in [*self.down, *self.up]))
        zero(*(part.modulation for part in self.modules() if isinstance(part, Layer | ToldNorm)))

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
        kept = iter(kept_channels(dropout, self.dropout, len(self.down) + len(self.up)))

        def middle(x: Tensor) -> Tensor:
            return x + self._through_patches(x, modulator)

        x = self.input(as_picture(self.embedding(tokens), self.shape))
        x = down_and_up(x, self.down, middle, self.up, modulator, kept)
        return as_sub_pixels(self.output(functional.silu(self.norm(x, modulator))), self.vocabulary)

    def _through_patches(self, x: Tensor, modulator: Tensor | None) -> Tensor:
        """(B, D, H, W) to the same."""
        patches_BPE = self.patches(functional.pixel_unshuffle(x, PATCH).flatten(2).transpose(1, 2)) + self.positions
        for layer in self.middle:
            patches_BPE = layer(patches_BPE, modulator)
        pixels_BPE = self.pixels(self.middle_norm(patches_BPE, modulator))
        rows, columns = x.shape[2] // PATCH, x.shape[3] // PATCH
        return functional.pixel_shuffle(pixels_BPE.transpose(1, 2).unflatten(2, (rows, columns)), PATCH)


class ToldNorm(nn.Module):
    """norm(x) (1 + scale) + shift, with scale and shift told, and 0 at first; a plain norm where nothing is told.

    A layer norm of (B, P, D), or, grouped, a group norm of (B, D, H, W) (AdaGN); in float32.
    """

    def __init__(self, width: int, told_width: int | None, *, grouped: bool = False) -> None:
        super().__init__()
        self.grouped = grouped
        plain = told_width is None
        self.norm = (
            GroupNorm(width // GROUP, width, affine=plain) if grouped else nn.LayerNorm(width, elementwise_affine=plain)
        )
        self.modulation = None if told_width is None else nn.Linear(told_width, 2 * width)

    def forward(self, x: Tensor, modulator: Tensor | None) -> Tensor:
        """To the same shape; `modulator` is (B, D) or None."""
        normal: Tensor = self.norm(x.float())
        if self.modulation is None:
            return normal
        modulation: Tensor = self.modulation(modulator)
        modulation = modulation[:, :, None, None] if self.grouped else modulation[:, None]
        shift, scale = modulation.chunk(2, dim=1 if self.grouped else 2)
        return normal * (1 + scale) + shift


class ResidualBlock(nn.Module):
    """shortcut(x) + output(drop(silu(norm(input(silu(norm(x))))))), both convolutions 3 x 3 and both norms told."""

    def __init__(self, channels: int, width: int, told_width: int | None) -> None:
        super().__init__()
        self.first_norm = ToldNorm(channels, told_width, grouped=True)
        self.input = Convolution(channels, width)
        self.second_norm = ToldNorm(width, told_width, grouped=True)
        self.output = Convolution(width, width)
        self.shortcut = nn.Conv2d(channels, width, 1) if channels != width else nn.Identity()

    def forward(self, x: Tensor, modulator: Tensor | None, kept: Tensor | None) -> Tensor:
        """(B, channels, H, W) to (B, D, H, W); `modulator` is (B, D) or None, `kept` (B, D) or None."""
        inner = self.input(functional.silu(self.first_norm(x, modulator)))
        inner = functional.silu(self.second_norm(inner, modulator))
        if kept is not None:
            inner = inner * kept[:, :, None, None]
        result: Tensor = self.shortcut(x) + self.output(inner)
        return result


class Layer(nn.Module):
    """x + gate * attention(norm(x)), then x + gate * mlp(norm(x)); norms and gates are told (adaLN-zero)."""

    def __init__(self, width: int, heads: int, told_width: int | None) -> None:
        super().__init__()
        self.heads = heads
        self.first_norm = nn.LayerNorm(width)
        self.input = nn.Linear(width, 3 * width)
        self.mixed = nn.Linear(width, width)
        self.second_norm = nn.LayerNorm(width)
        self.mlp = GatedMLP(width)
        self.modulation = None if told_width is None else nn.Linear(told_width, 6 * width)

    def forward(self, x: Tensor, modulator: Tensor | None) -> Tensor:
        """(B, P, E) to the same; `modulator` is (B, D) or None."""
        if self.modulation is None:
            x = x + self._attention(self.first_norm(x))
            plain: Tensor = x + self.mlp(self.second_norm(x))
            return plain
        first, second = self.modulation(modulator)[:, None].chunk(2, dim=2)
        shift, scale, gate = first.chunk(3, dim=2)
        x = x + gate * self._attention(self.first_norm(x) * (1 + scale) + shift)
        shift, scale, gate = second.chunk(3, dim=2)
        told_of: Tensor = x + gate * self.mlp(self.second_norm(x) * (1 + scale) + shift)
        return told_of

    def _attention(self, x: Tensor) -> Tensor:
        query, key, value = self.input(x).unflatten(2, (3 * self.heads, -1)).transpose(1, 2).chunk(3, dim=1)
        update: Tensor = self.mixed(attend(query, key, value).transpose(1, 2).flatten(2))
        return update
