"""The paper's U-Net for images: residual convolutions at full resolution with skip connections, no downsampling.

With equal weights it computes the same as the official implementation (google-deepmind/md4, md4/networks/unet.py), and
dropout has the same site: single elements before a block's second convolution.

Shapes: B batch, H x W x C images, D width, V vocabulary. A sub-pixel is one channel of one pixel.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from mdpipe.networks.base import Network, Shape
from mdpipe.networks.image_utils import (
    Conv3x3,
    GroupNorm,
    feature_map_to_logits,
    num_groups,
    tokens_to_feature_map,
    unet_forward,
)
from mdpipe.networks.layers import (
    Conditioning,
    attention,
    dropout,
    init_flax_defaults_,
    init_ordinal_embedding_,
    split_keys,
    zero_init_,
)
from mdpipe.params.networks import UNetConfig


class UNet(Network, config=UNetConfig):
    """U-Net denoiser for images.

    Each sub-pixel's value is embedded, and the embeddings of a pixel are concatenated. Then follow `num_blocks`
    residual blocks down, one block of attention between two residual blocks, and `num_blocks` + 1 residual blocks up,
    each with a skip connection from the way down. The last convolution computes the logits of all sub-pixels of a
    pixel: these are the hidden states, and the head is the identity.
    """

    config: UNetConfig

    def __init__(
        self, config: UNetConfig, vocab_size: int, shape: Shape, *, num_classes: int = 0, causal: bool = False
    ) -> None:
        super().__init__(config, vocab_size, shape, num_classes=num_classes, causal=causal)
        width, blocks, dropout = config.hidden_size, config.num_blocks, config.dropout
        channels = shape[2]
        self.embedding = nn.Embedding(vocab_size + 1, width)
        self.conditioning = Conditioning(width, time_conditioning=config.time_conditioning, num_classes=num_classes)
        cond_dim = self.conditioning.cond_dim
        self.conv_in = Conv3x3(channels * width, width)
        self.down = nn.ModuleList(ResidualBlock(width, width, cond_dim, dropout) for _ in range(blocks))
        self.middle = nn.ModuleList(ResidualBlock(width, width, cond_dim, dropout) for _ in range(2))
        self.attention = AttentionBlock(width)
        self.up = nn.ModuleList(ResidualBlock(2 * width, width, cond_dim, dropout) for _ in range(blocks + 1))
        self.norm = GroupNorm(num_groups(width), width)
        self.conv_out = Conv3x3(width, channels * vocab_size)
        self.head = nn.Identity()

    def init_weights(self, generator: torch.Generator) -> None:
        """Initialize as the official implementation does; residual blocks initially add 0.

        With `init: ordinal`, the embedding encodes the order of the values and attention initially adds 0.
        """
        init_flax_defaults_(self, generator)
        if self.config.init == "ordinal":
            init_ordinal_embedding_(self.embedding)
            zero_init_(self.attention.out_proj)
        blocks = [*self.down, *self.middle, *self.up]
        zero_init_(self.conv_out, *(block.conv2 for block in blocks), *(block.modulation for block in blocks))

    def forward(
        self, tokens: Tensor, t: Tensor, class_labels: Tensor | None = None, dropout_keys: Tensor | None = None
    ) -> Tensor:
        """Compute the logits of every sub-pixel, (B, H W C, V), from tokens (B, H W C) in the order (H, W, C).

        Raises:
            ValueError: `Conditioning` refuses the class labels.
        """
        cond = self.conditioning(tokens, t, class_labels)
        keys = iter(split_keys(dropout_keys, len(self.down) + len(self.middle) + len(self.up)))
        before, after = self.middle

        def middle(x: Tensor) -> Tensor:
            x = before(x, cond, next(keys))
            x = self.attention(x)
            out: Tensor = after(x, cond, next(keys))
            return out

        x = self.conv_in(tokens_to_feature_map(self.embedding(tokens), self.shape))
        x = unet_forward(x, self.down, middle, self.up, cond, keys)
        return feature_map_to_logits(self.conv_out(functional.silu(self.norm(x))), self.vocab_size)

    def attention_size(self, length: int) -> tuple[int, int]:
        """Return the pixels, and the width of the attention in the middle."""
        return length // self.shape[2], self.config.hidden_size


class ResidualBlock(nn.Module):
    """Residual block: shortcut(x) + conv(dropout(silu(norm(conv(silu(norm(x))) + W cond)))).

    The convolutions are 3 x 3. The shortcut is the identity, or a 1 x 1 convolution where the number of channels
    changes. Without conditioning there is no W; initially it is 0.

    Args:
        channels: Number of input channels.
        width: D.
        cond_dim: Width of the conditioning vector, or None without conditioning.
        dropout: Dropout rate.
    """

    def __init__(self, channels: int, width: int, cond_dim: int | None, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.norm1 = GroupNorm(num_groups(width), channels)
        self.conv1 = Conv3x3(channels, width)
        self.norm2 = GroupNorm(num_groups(width), width)
        self.conv2 = Conv3x3(width, width)
        self.shortcut = nn.Conv2d(channels, width, 1) if channels != width else nn.Identity()
        self.modulation = None if cond_dim is None else nn.Linear(cond_dim, width, bias=False)

    def forward(self, x: Tensor, cond: Tensor | None, keys: Tensor | None) -> Tensor:
        """Apply the block to x (B, channels, H, W), with cond (B, cond_dim) and dropout keys (B, 2): (B, D, H, W)."""
        h = self.conv1(functional.silu(self.norm1(x)))
        if self.modulation is not None:
            h = h + self.modulation(cond)[:, :, None, None]
        h = functional.silu(self.norm2(h))
        # Dropout numbers the elements in the order (H, W, D) of channels-last memory.
        h = dropout(h.permute(0, 2, 3, 1), keys, self.dropout).permute(0, 3, 1, 2)
        out: Tensor = self.shortcut(x) + self.conv2(h)
        return out


class AttentionBlock(nn.Module):
    """Single-head self-attention over pixels: x + W_out attention(W_qkv norm(x)).

    Args:
        width: D.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = GroupNorm(num_groups(width), width)
        self.qkv_proj = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block to a feature map x (B, D, H, W)."""
        pixels = self.norm(x).permute(0, 2, 3, 1).flatten(1, 2)
        query, key, value = self.qkv_proj(pixels)[:, None].chunk(3, dim=-1)
        y = attention(query, key, value)[:, 0]
        out: Tensor = self.out_proj(y).view(len(x), *x.shape[2:], -1)
        return x + out.permute(0, 3, 1, 2)
