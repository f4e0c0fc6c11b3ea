"""The paper's U-ViT for larger images: the U-Net's two sides, with a transformer over patches (a DiT) in the middle.

The norms' scale and shift depend on the conditioning vector. With equal weights the network computes what the official
implementation does (google-deepmind/md4, md4/networks/uvit.py and dit.py), and dropout has the same sites: single
elements before a block's second convolution, of the attention's probabilities and twice in an MLP, and whole channels
of what attention adds.

Shapes: B batch, H x W x C images, D width, V vocabulary, P patches, E width of the transformer.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from mdpipe.networks.attention import attend
from mdpipe.networks.base import Network
from mdpipe.networks.conditioning import Conditioning
from mdpipe.networks.convolution import Convolution
from mdpipe.networks.dropout import channel_dropout, dropout, split_keys
from mdpipe.networks.group_norm import EPSILON, SMALL_GROUP, GroupNorm, num_groups
from mdpipe.networks.initial import init_ordinal_embedding_, init_weights, zero_init_
from mdpipe.networks.pictures import as_picture, as_sub_pixels, check_init, down_and_up

PATCH = 2
"""Rows and columns of a patch."""
LONGEST_WAVELENGTH = 10_000.0
MLP_RATIO = 4
SITES = 4
"""Dropout sites of a layer of the transformer."""


class UViT(Network):
    """A denoiser for images of even height and width.

    As in the U-Net, `blocks` residual blocks go down and `blocks` + 1 go up at full resolution, each of which also sees
    what a block on the way down was given or gave. In between, patches of 2 x 2 pixels go through `layers` layers of
    attention of width `middle_width`. The last convolution gives the logits of all sub-pixels; the head is nothing.

    Raises:
        ValueError: the shape is not one of an image with even sides, a width does not divide, or it is to be causal.
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
        init: str = "md4",
    ) -> None:
        super().__init__()
        check_init(init)
        if causal:
            raise ValueError("network.kind = uvit sees every pixel at once and cannot be causal; take a transformer")
        if len(shape) != 3 or shape[0] % PATCH or shape[1] % PATCH:
            raise ValueError(f"network.kind = uvit takes pictures (height, width, channels) of even size, not {shape}")
        if width % SMALL_GROUP:
            raise ValueError(f"network.width = {width} must be a multiple of {SMALL_GROUP} for a U-ViT")
        if middle_width % 4:
            raise ValueError(f"network.middle_width = {middle_width} must be a multiple of 4 for a U-ViT (positions)")
        if middle_width % heads:
            raise ValueError(f"network.heads = {heads} does not divide network.middle_width = {middle_width}")
        self.vocabulary = vocabulary
        self.shape = shape
        self.length = math.prod(shape)
        self.middle_width = middle_width
        self.dropout = dropout
        self.init = init
        height, breadth, channels = shape
        self.embedding = nn.Embedding(vocabulary + 1, width)
        self.conditioning = Conditioning(width, time_conditioning=time_conditioning, num_classes=classes)
        cond_width = None if self.conditioning.is_empty else width
        self.input = Convolution(channels * width, width)
        self.down = nn.ModuleList(ResidualBlock(width, width, cond_width, dropout) for _ in range(blocks))
        self.patches = nn.Linear(PATCH**2 * width, middle_width)
        self.positions = nn.Parameter(torch.empty(height * breadth // PATCH**2, middle_width))
        self.middle = nn.ModuleList(TransformerBlock(middle_width, heads, cond_width, dropout) for _ in range(layers))
        self.middle_norm = AdaLayerNorm(middle_width, cond_width)
        self.pixels = nn.Linear(middle_width, PATCH**2 * width)
        self.up = nn.ModuleList(ResidualBlock(2 * width, width, cond_width, dropout) for _ in range(blocks + 1))
        self.norm = AdaGroupNorm(width, width, cond_width)
        self.output = Convolution(width, channels * vocabulary)
        self.head = nn.Identity()

    def initialise(self, generator: torch.Generator) -> None:
        """Initialize the weights as the official implementation does; blocks and layers add nothing at first.

        The middle as a whole returns 0, and the positions are sinusoids of their row and column. With
        `init: ordinal` only the embedding differs: near values start near each other.
        """
        init_weights(self, generator)
        if self.init == "ordinal":
            init_ordinal_embedding_(self.embedding)
        with torch.no_grad():
            self.positions.copy_(sincos_positions(self.shape[0] // PATCH, self.shape[1] // PATCH, self.middle_width))
        zero_init_(self.output, self.pixels, *(block.output for block in [*self.down, *self.up]))
        adaptive = (TransformerBlock, AdaLayerNorm, AdaGroupNorm)
        zero_init_(*(part.modulation for part in self.modules() if isinstance(part, adaptive)))

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
        in_middle = SITES * len(self.middle)
        keys = split_keys(dropout_keys if self.dropout else None, in_middle + len(self.down) + len(self.up))

        def middle(x: Tensor) -> Tensor:
            return self._through_patches(x, cond, keys[:in_middle])

        x = self.input(as_picture(self.embedding(tokens), self.shape))
        x = down_and_up(x, self.down, middle, self.up, cond, iter(keys[in_middle:]))
        return as_sub_pixels(self.output(functional.silu(self.norm(x, cond))), self.vocabulary)

    def _through_patches(self, x: Tensor, cond: Tensor | None, keys: list[Tensor | None]) -> Tensor:
        """(B, D, H, W) to the same."""
        patches_BPE = self.patches(functional.pixel_unshuffle(x, PATCH).flatten(2).transpose(1, 2)) + self.positions
        if cond is not None:
            cond = functional.silu(cond)  # The residual blocks are given the vector itself.
        for index, layer in enumerate(self.middle):
            patches_BPE = layer(patches_BPE, cond, *keys[SITES * index : SITES * (index + 1)])
        pixels_BPE = self.pixels(self.middle_norm(patches_BPE, cond))
        rows, columns = x.shape[2] // PATCH, x.shape[3] // PATCH
        return functional.pixel_shuffle(pixels_BPE.transpose(1, 2).unflatten(2, (rows, columns)), PATCH)


class AdaGroupNorm(nn.Module):
    """norm(x) (1 + scale) + shift by the conditioning vector, both 0 at first; unconditioned a norm with weights."""

    def __init__(self, channels: int, width: int, cond_width: int | None) -> None:
        super().__init__()
        self.norm = GroupNorm(num_groups(width), channels, affine=cond_width is None)
        self.modulation = None if cond_width is None else nn.Linear(cond_width, 2 * channels)

    def forward(self, x: Tensor, cond: Tensor | None) -> Tensor:
        """(B, C, H, W) to the same, in float32; `cond` is (B, D) or None."""
        normal: Tensor = self.norm(x)
        if self.modulation is None:
            return normal
        modulation: Tensor = self.modulation(cond)[:, :, None, None]
        scale, shift = modulation.chunk(2, dim=1)
        return normal * (1 + scale) + shift


class AdaLayerNorm(nn.Module):
    """norm(x) (1 + scale) + shift by the conditioning vector, both 0 at first; unconditioned an RMSNorm."""

    def __init__(self, width: int, cond_width: int | None) -> None:
        super().__init__()
        self.norm = norm(width, cond_width)
        self.modulation = None if cond_width is None else nn.Linear(cond_width, 2 * width)

    def forward(self, x: Tensor, cond: Tensor | None) -> Tensor:
        """(B, P, E) to the same; `cond` is (B, D) or None."""
        normal: Tensor = self.norm(x)
        if self.modulation is None:
            return normal
        modulation: Tensor = self.modulation(cond)[:, None]
        shift, scale = modulation.chunk(2, dim=2)
        return normal * (1 + scale) + shift


class ResidualBlock(nn.Module):
    """shortcut(x) + output(drop(silu(norm(input(silu(norm(x))))))), both convolutions 3 x 3, both norms conditioned."""

    def __init__(self, channels: int, width: int, cond_width: int | None, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.first_norm = AdaGroupNorm(channels, width, cond_width)
        self.input = Convolution(channels, width)
        self.second_norm = AdaGroupNorm(width, width, cond_width)
        self.output = Convolution(width, width)
        self.shortcut = nn.Conv2d(channels, width, 1) if channels != width else nn.Identity()

    def forward(self, x: Tensor, cond: Tensor | None, keys: Tensor | None) -> Tensor:
        """(B, channels, H, W) to (B, D, H, W); `cond` is (B, D) or None, `keys` (B, 2) or None."""
        inner = self.input(functional.silu(self.first_norm(x, cond)))
        inner = functional.silu(self.second_norm(inner, cond))
        # Numbered with the channels last, as they are in memory.
        inner = dropout(inner.permute(0, 2, 3, 1), keys, self.dropout).permute(0, 3, 1, 2)
        result: Tensor = self.shortcut(x) + self.output(inner)
        return result


class TransformerBlock(nn.Module):
    """x + gate * attention(norm(x)), then x + gate * mlp(norm(x)); norms and gates are conditioned (adaLN-zero)."""

    def __init__(self, width: int, heads: int, cond_width: int | None, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.first_norm = norm(width, cond_width)
        self.qkv_proj = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width, bias=False)
        self.second_norm = norm(width, cond_width)
        self.up_proj = nn.Linear(width, MLP_RATIO * width)
        self.down_proj = nn.Linear(MLP_RATIO * width, width)
        self.modulation = None if cond_width is None else nn.Linear(cond_width, 6 * width)

    def forward(self, x: Tensor, cond: Tensor | None, *keys: Tensor | None) -> Tensor:
        """(B, P, E) to the same; `cond` is (B, D) or None, `keys` (B, 2) for each of the four sites, or None."""
        attention_keys, mlp_keys = keys[:2], keys[2:]
        if self.modulation is None:
            x = x + self._attention(self.first_norm(x), *attention_keys)
            return x + self._mlp(self.second_norm(x), *mlp_keys)
        modulation: Tensor = self.modulation(cond)[:, None]
        first, second = modulation.chunk(2, dim=2)
        shift, scale, gate = first.chunk(3, dim=2)
        x = x + gate * self._attention(self.first_norm(x) * (1 + scale) + shift, *attention_keys)
        shift, scale, gate = second.chunk(3, dim=2)
        return x + gate * self._mlp(self.second_norm(x) * (1 + scale) + shift, *mlp_keys)

    def _attention(self, x: Tensor, of_probabilities: Tensor | None, of_output: Tensor | None) -> Tensor:
        query, key, value = self.qkv_proj(x).unflatten(2, (3 * self.heads, -1)).transpose(1, 2).chunk(3, dim=1)
        mixed = attend(query, key, value, dropout_keys=of_probabilities, rate=self.dropout)
        return channel_dropout(self.out_proj(mixed.transpose(1, 2).flatten(2)), of_output, self.dropout)

    def _mlp(self, x: Tensor, of_hidden: Tensor | None, of_output: Tensor | None) -> Tensor:
        hidden = dropout(functional.gelu(self.up_proj(x), approximate="tanh"), of_hidden, self.dropout)
        return dropout(self.down_proj(hidden), of_output, self.dropout)


def norm(width: int, cond_width: int | None) -> nn.Module:
    """Return an RMSNorm, or, if its scale comes from a conditioning vector, a LayerNorm without weights."""
    if cond_width is None:
        return nn.RMSNorm(width, eps=EPSILON)
    return nn.LayerNorm(width, eps=EPSILON, elementwise_affine=False)


def sincos_positions(rows: int, columns: int, width: int) -> Tensor:
    """Compute fixed 2-d positions (rows * columns, width): sines and cosines of the column, then those of the row.

    Each half has width / 4 frequencies, 10000^(-k / (width / 4)) for k = 0, 1, ... (DiT, Peebles and Xie, 2023).
    """
    quarter = width // 4
    frequencies = LONGEST_WAVELENGTH ** -(torch.arange(quarter, dtype=torch.float64) / quarter)
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    angles = torch.stack([column, row], dim=-1).flatten(0, 1)[:, :, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(1).float()
