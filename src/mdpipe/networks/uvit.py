"""The paper's U-ViT for larger images: the two sides of the U-Net with a transformer over patches (DiT) in the middle.

The norms' scale and shift depend on the conditioning vector. With equal weights the network computes the same as the
official implementation (google-deepmind/md4, md4/networks/uvit.py and dit.py), and dropout has the same sites: single
elements before a block's second convolution, of the attention probabilities and twice in an MLP, and whole channels of
attention's output.

Shapes: B batch, H x W x C images, D width, V vocabulary, P patches, E width of the transformer.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from mdpipe.networks.base import Network, Shape
from mdpipe.networks.image_utils import (
    NORM_EPS,
    Conv3x3,
    GroupNorm,
    feature_map_to_logits,
    num_groups,
    tokens_to_feature_map,
    unet_forward,
)
from mdpipe.networks.layers import (
    LONGEST_WAVELENGTH,
    AdaLayerNorm,
    Conditioning,
    QKNorm,
    attention,
    build_norm,
    channel_dropout,
    dropout,
    init_flax_defaults_,
    init_ordinal_embedding_,
    split_keys,
    zero_init_,
)
from mdpipe.params.networks import UViTConfig

PATCH_SIZE = UViTConfig.patch_size
"""Height and width of a patch in pixels."""

MLP_RATIO = 4
"""Hidden channels of an MLP per channel of the transformer."""

SITES_PER_BLOCK = 4
"""Dropout sites of a transformer block."""


class UViT(Network, config=UViTConfig):
    """U-ViT denoiser for images of even height and width.

    As in the U-Net, `num_blocks` residual blocks go down and `num_blocks` + 1 go up at full resolution, with skip
    connections. In between, `num_layers` transformer blocks of width `transformer_width` process patches of 2 x 2
    pixels. The last convolution computes the logits of all sub-pixels of a pixel: these are the hidden states, and the
    head is the identity.
    """

    config: UViTConfig

    def __init__(
        self, config: UViTConfig, vocab_size: int, shape: Shape, *, num_classes: int = 0, causal: bool = False
    ) -> None:
        super().__init__(config, vocab_size, shape, num_classes=num_classes, causal=causal)
        width, blocks, dropout = config.hidden_size, config.num_blocks, config.dropout
        inner, heads = config.transformer_width, config.num_heads
        channels = shape[2]
        num_patches = shape[0] * shape[1] // PATCH_SIZE**2
        self.embedding = nn.Embedding(vocab_size + 1, width)
        self.conditioning = Conditioning(width, time_conditioning=config.time_conditioning, num_classes=num_classes)
        cond_dim = self.conditioning.cond_dim
        self.conv_in = Conv3x3(channels * width, width)
        self.down = nn.ModuleList(ResidualBlock(width, width, cond_dim, dropout) for _ in range(blocks))
        self.patches = nn.Linear(PATCH_SIZE**2 * width, inner)
        self.positions = nn.Parameter(torch.empty(num_patches, inner))
        self.middle = nn.ModuleList(
            TransformerBlock(inner, heads, cond_dim, dropout, config.qk_norm) for _ in range(config.num_layers)
        )
        self.middle_norm = AdaLayerNorm(inner, cond_dim, NORM_EPS)
        self.pixels = nn.Linear(inner, PATCH_SIZE**2 * width)
        self.up = nn.ModuleList(ResidualBlock(2 * width, width, cond_dim, dropout) for _ in range(blocks + 1))
        self.norm = AdaGroupNorm(width, width, cond_dim)
        self.conv_out = Conv3x3(width, channels * vocab_size)
        self.head = nn.Identity()

    def init_weights(self, generator: torch.Generator) -> None:
        """Initialize as the official implementation does; residual and conditioned transformer blocks add 0.

        The whole middle initially returns 0, and the position embedding is `sincos_positions`. With `init: ordinal`,
        the embedding encodes the order of the values.
        """
        init_flax_defaults_(self, generator)
        if self.config.init == "ordinal":
            init_ordinal_embedding_(self.embedding)
        rows, columns = self.shape[0] // PATCH_SIZE, self.shape[1] // PATCH_SIZE
        with torch.no_grad():
            self.positions.copy_(sincos_positions(rows, columns, self.config.transformer_width))
        zero_init_(self.conv_out, self.pixels, *(block.conv2 for block in [*self.down, *self.up]))
        adaptive = (TransformerBlock, AdaLayerNorm, AdaGroupNorm)
        zero_init_(*(module.modulation for module in self.modules() if isinstance(module, adaptive)))

    def forward(
        self, tokens: Tensor, t: Tensor, class_labels: Tensor | None = None, dropout_keys: Tensor | None = None
    ) -> Tensor:
        """Compute the logits of every sub-pixel, (B, H W C, V), from tokens (B, H W C) in the order (H, W, C).

        Raises:
            ValueError: `Conditioning` refuses the class labels.
        """
        cond = self.conditioning(tokens, t, class_labels)
        middle_sites = SITES_PER_BLOCK * len(self.middle)
        keys = split_keys(dropout_keys, middle_sites + len(self.down) + len(self.up))

        def middle(x: Tensor) -> Tensor:
            return self._transform_patches(x, cond, keys[:middle_sites])

        x = self.conv_in(tokens_to_feature_map(self.embedding(tokens), self.shape))
        x = unet_forward(x, self.down, middle, self.up, cond, iter(keys[middle_sites:]))
        return feature_map_to_logits(self.conv_out(functional.silu(self.norm(x, cond))), self.vocab_size)

    def _transform_patches(self, x: Tensor, cond: Tensor | None, keys: Sequence[Tensor | None]) -> Tensor:
        """Split x (B, D, H, W) into patches (B, P, E), apply the transformer and reassemble (B, D, H, W)."""
        patches = functional.pixel_unshuffle(x, PATCH_SIZE).flatten(2).transpose(1, 2)
        h = self.patches(patches) + self.positions
        if cond is not None:
            cond = functional.silu(cond)  # The residual blocks take the vector without an activation.
        for index, block in enumerate(self.middle):
            h = block(h, cond, *keys[SITES_PER_BLOCK * index : SITES_PER_BLOCK * (index + 1)])
        pixels = self.pixels(self.middle_norm(h, cond)).transpose(1, 2)
        rows, columns = x.shape[2] // PATCH_SIZE, x.shape[3] // PATCH_SIZE
        return functional.pixel_shuffle(pixels.unflatten(2, (rows, columns)), PATCH_SIZE)

    def attention_size(self, length: int) -> tuple[int, int]:
        """Return the patches, and the width of the attention of all layers in the middle."""
        return length // self.shape[2] // PATCH_SIZE**2, len(self.middle) * self.config.transformer_width


class AdaGroupNorm(nn.Module):
    """Adaptive group norm: norm(x) (1 + scale(cond)) + shift(cond), or a group norm with weights if unconditioned.

    Args:
        channels: Number of channels.
        width: D, which decides the number of groups.
        cond_dim: Width of the conditioning vector, or None without conditioning.
    """

    def __init__(self, channels: int, width: int, cond_dim: int | None) -> None:
        super().__init__()
        self.norm = GroupNorm(num_groups(width), channels, affine=cond_dim is None)
        self.modulation = None if cond_dim is None else nn.Linear(cond_dim, 2 * channels)

    def forward(self, x: Tensor, cond: Tensor | None) -> Tensor:
        """Normalize x (B, channels, H, W), given `cond` (B, cond_dim) or None; the result is float32 or wider."""
        normalized: Tensor = self.norm(x)
        if self.modulation is None:
            return normalized
        modulation: Tensor = self.modulation(cond)[:, :, None, None]
        scale, shift = modulation.chunk(2, dim=1)
        return normalized * (1 + scale) + shift


class ResidualBlock(nn.Module):
    """Residual block: shortcut(x) + conv(dropout(silu(norm(conv(silu(norm(x))))))), with `AdaGroupNorm` as norm.

    The convolutions are 3 x 3. The shortcut is the identity, or a 1 x 1 convolution where the number of channels
    changes.

    Args:
        channels: Number of input channels.
        width: D.
        cond_dim: Width of the conditioning vector, or None without conditioning.
        dropout: Dropout rate.
    """

    def __init__(self, channels: int, width: int, cond_dim: int | None, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.norm1 = AdaGroupNorm(channels, width, cond_dim)
        self.conv1 = Conv3x3(channels, width)
        self.norm2 = AdaGroupNorm(width, width, cond_dim)
        self.conv2 = Conv3x3(width, width)
        self.shortcut = nn.Conv2d(channels, width, 1) if channels != width else nn.Identity()

    def forward(self, x: Tensor, cond: Tensor | None, keys: Tensor | None) -> Tensor:
        """Apply the block to x (B, channels, H, W), with cond (B, cond_dim) and dropout keys (B, 2): (B, D, H, W)."""
        h = self.conv1(functional.silu(self.norm1(x, cond)))
        h = functional.silu(self.norm2(h, cond))
        # Dropout numbers the elements in the order (H, W, D) of channels-last memory.
        h = dropout(h.permute(0, 2, 3, 1), keys, self.dropout).permute(0, 3, 1, 2)
        out: Tensor = self.shortcut(x) + self.conv2(h)
        return out


class TransformerBlock(nn.Module):
    """Transformer block of DiT with adaLN-zero (Peebles and Xie, 2023): attention, then an MLP.

    Each is x + gate f(norm(x) (1 + scale) + shift), with shift, scale and gate linear in the conditioning vector and
    initially 0; without conditioning it is x + f(norm(x)).

    Args:
        width: E.
        heads: Number of attention heads.
        cond_dim: Width of the conditioning vector, or None without conditioning.
        dropout: Dropout rate.
        qk_norm: True to normalize queries and keys.
    """

    def __init__(self, width: int, heads: int, cond_dim: int | None, dropout: float, qk_norm: bool) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.norm1 = build_norm(width, cond_dim, NORM_EPS)
        self.qkv_proj = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width, bias=False)
        self.qk_norm = QKNorm(width // heads) if qk_norm else None
        self.norm2 = build_norm(width, cond_dim, NORM_EPS)
        self.up_proj = nn.Linear(width, MLP_RATIO * width)
        self.down_proj = nn.Linear(MLP_RATIO * width, width)
        self.modulation = None if cond_dim is None else nn.Linear(cond_dim, 6 * width)

    def forward(self, x: Tensor, cond: Tensor | None, *keys: Tensor | None) -> Tensor:
        """Apply the block to patches (B, P, E), with cond (B, cond_dim) and dropout keys (B, 2) per site."""
        attention_keys, mlp_keys = keys[:2], keys[2:]
        if self.modulation is None:
            x = x + self._attention(self.norm1(x), *attention_keys)
            return x + self._mlp(self.norm2(x), *mlp_keys)
        modulation: Tensor = self.modulation(cond)[:, None]
        first, second = modulation.chunk(2, dim=2)
        shift, scale, gate = first.chunk(3, dim=2)
        x = x + gate * self._attention(self.norm1(x) * (1 + scale) + shift, *attention_keys)
        shift, scale, gate = second.chunk(3, dim=2)
        return x + gate * self._mlp(self.norm2(x) * (1 + scale) + shift, *mlp_keys)

    def _attention(self, x: Tensor, probs_keys: Tensor | None, out_keys: Tensor | None) -> Tensor:
        query, key, value = self.qkv_proj(x).unflatten(2, (3 * self.heads, -1)).transpose(1, 2).chunk(3, dim=1)
        if self.qk_norm is not None:
            query, key = self.qk_norm(query, key)
        y = attention(query, key, value, dropout_keys=probs_keys, dropout_rate=self.dropout)
        return channel_dropout(self.out_proj(y.transpose(1, 2).flatten(2)), out_keys, self.dropout)

    def _mlp(self, x: Tensor, hidden_keys: Tensor | None, out_keys: Tensor | None) -> Tensor:
        hidden = dropout(functional.gelu(self.up_proj(x), approximate="tanh"), hidden_keys, self.dropout)
        return dropout(self.down_proj(hidden), out_keys, self.dropout)


def sincos_positions(rows: int, columns: int, width: int) -> Tensor:
    """Compute the fixed 2D position embedding of DiT (Peebles and Xie, 2023): sines and cosines of column, then row.

    Each of the four parts has width / 4 frequencies, 10000^(-k / (width / 4)) for k = 0, 1, ...

    Args:
        rows: Number of rows of patches.
        columns: Number of columns of patches.
        width: E, a multiple of 4.

    Returns:
        (rows * columns, E) float32.
    """
    num_frequencies = width // 4
    frequencies = LONGEST_WAVELENGTH ** -(torch.arange(num_frequencies, dtype=torch.float64) / num_frequencies)
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    angles = torch.stack([column, row], dim=-1).flatten(0, 1)[:, :, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(1).float()
