"""Layers shared by the networks for images: skip connections, group norms and 3 x 3 convolutions.

Group norms and convolutions have a second implementation for compiled code on a CPU, with the same result up to
rounding.

Shapes: B batch, H x W x C images or C channels, D width, O output channels, V vocabulary, G groups. A sub-pixel is one
channel of one pixel.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import reduce
from operator import add

import torch
from torch import Tensor, nn
from torch.nn import functional

NORM_EPS = 1e-6
"""Added to variances: Flax's default, which the paper's networks for images use."""

NUM_GROUPS = 32
"""Number of groups of a group norm, as in the paper's networks."""

SMALL_GROUP_SIZE = 4
"""Channels of a group in networks too narrow for `NUM_GROUPS`."""

TILE_ROWS = 4
"""Output rows that Winograd's algorithm computes together."""

INPUT_TRANSFORM = (
    (1, 3 / 2, -2, -3 / 2, 1, 0),
    (0, 1 / 3, 5 / 6, 1 / 6, -1 / 3, 0),
    (0, 1 / 3, 1 / 6, -5 / 6, 1 / 3, 0),
    (0, -1 / 30, -1 / 15, 1 / 30, 1 / 15, 0),
    (0, -32 / 15, 16 / 15, 32 / 15, -16 / 15, 0),
    (0, 1, 3 / 2, -2, -3 / 2, 1),
)
"""B^T of Winograd's algorithm F(4, 3), see `winograd_conv2d`."""

KERNEL_TRANSFORM = ((1, 0, 0), (1, 1, 1), (1, -1, 1), (1, 2, 4), (1, -1 / 2, 1 / 4), (0, 0, 1))
"""G of Winograd's algorithm F(4, 3)."""

OUTPUT_TRANSFORM = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -1 / 2, 0), (0, 1, 1, 4, 1 / 4, 0), (0, 1, -1, 8, -1 / 8, 1))
"""A^T of Winograd's algorithm F(4, 3)."""


def tokens_to_feature_map(embedded: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Reshape embedded sub-pixels (B, H W C, D) to a feature map (B, C D, H, W) by concatenating a pixel's embeddings.

    The result is in channels-last memory format, as all feature maps up to `feature_map_to_logits`, so neither copies.
    """
    return embedded.view(len(embedded), *shape[:2], -1).permute(0, 3, 1, 2)


def feature_map_to_logits(x: Tensor, vocab_size: int) -> Tensor:
    """Reshape a feature map (B, C V, H, W) to logits (B, H W C, V) of sub-pixels."""
    return x.permute(0, 2, 3, 1).reshape(len(x), -1, vocab_size)


def unet_forward(
    x: Tensor,
    down: Iterable[nn.Module],
    middle: Callable[[Tensor], Tensor],
    up: Iterable[nn.Module],
    cond: Tensor | None,
    keys: Iterator[Tensor | None],
) -> Tensor:
    """Apply the blocks of a U-Net with skip connections (Ronneberger et al., 2015), all at full resolution.

    Up block i takes its input concatenated with x after all but i of the down blocks.

    Args:
        x: (B, D, H, W), the input of the first down block.
        down: Blocks called with a feature map, the conditioning vector and dropout keys.
        middle: Called between the two sides.
        up: Blocks like `down`, one more, that take twice the channels.
        cond: Conditioning vector (B, D), or None.
        keys: Dropout keys (B, 2), or None, of each block in the order of execution.

    Returns:
        (B, D, H, W).
    """
    skips = [x]
    for block in down:
        x = block(x, cond, next(keys))
        skips.append(x)
    x = middle(x)
    for block in up:
        x = block(torch.cat([x, skips.pop()], dim=1), cond, next(keys))
    return x


def num_groups(width: int) -> int:
    """Return the number of groups of a group norm in a network of this width.

    It is 32, as in the paper, if 32 divides the width into groups of two channels or more; otherwise groups have four
    channels.
    """
    return NUM_GROUPS if width % NUM_GROUPS == 0 and width > NUM_GROUPS else width // SMALL_GROUP_SIZE


class GroupNorm(nn.GroupNorm):
    """Group norm (Wu and He, 2018), (x - mean) / sqrt(variance + eps) weight + bias with moments of a group.

    It is in float32 or wider under any autocast; in bfloat16, the gradient would also be slow on a CPU.

    Args:
        groups: G.
        channels: C, a multiple of G.
        affine: True for a weight and a bias.
    """

    def __init__(self, groups: int, channels: int, *, affine: bool = True) -> None:
        super().__init__(groups, channels, eps=NORM_EPS, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        """Normalize x (B, C, H, W) of any dtype; the result is float32 or wider."""
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        if torch.compiler.is_compiling() and x.device.type == "cpu":
            with torch.autocast("cpu", enabled=False):
                return self._scale_and_shift(x)
        return super().forward(x)

    def _scale_and_shift(self, x: Tensor) -> Tensor:
        """Compute the norm as x scale + shift, with scale and shift (B, C).

        The variance is E x^2 - (E x)^2, as in torch's kernel for channels-last memory. Sums over a group's channels,
        and broadcasts to them, are products with a small matrix (G, C): as a tensor dimension, the group would become
        the compiler's innermost loop, of four channels only.
        """
        member_GC = torch.eye(self.num_groups, dtype=x.dtype, device=x.device).repeat_interleave(
            len(x[0]) // self.num_groups, dim=1
        )
        sums = torch.cat([x.sum(dim=(2, 3)), x.square().sum(dim=(2, 3))])
        mean, square = (sums @ member_GC.T / (x[0].numel() // self.num_groups)).chunk(2)
        inverse = ((square - mean.square()).clamp(min=0) + self.eps).rsqrt()
        weight_GC = member_GC if self.weight is None else member_GC * self.weight
        scale, shift = (torch.cat([inverse, -mean * inverse]) @ weight_GC).chunk(2)
        if self.bias is not None:
            shift = shift + self.bias
        return x * scale[:, :, None, None] + shift[:, :, None, None]


class Conv3x3(nn.Conv2d):
    """3 x 3 convolution with padding 1; compiled on a CPU it needs half the multiplications (`winograd_conv2d`).

    Args:
        in_channels: C.
        out_channels: O.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve x (B, C, H, W) to (B, O, H, W)."""
        if torch.compiler.is_compiling() and x.device.type == "cpu" and x.shape[2] % TILE_ROWS == 0:
            return winograd_conv2d(x, self.weight, self.bias)
        return super().forward(x)


def winograd_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute conv2d(x, weight, bias, padding=1), up to rounding, with Winograd's minimal filtering F(4, 3).

    Along the height, four output rows y come from six input rows d with six multiplications instead of twelve:

        y = A^T [(G g) * (B^T d)],

    where g are the three rows of the kernel, * multiplies row by row, and B^T, G and A^T are `INPUT_TRANSFORM`,
    `KERNEL_TRANSFORM` and `OUTPUT_TRANSFORM` (Winograd, 1980; Lavin and Gray, 2016, arXiv:1509.09308, section 4). Each
    multiplication of rows is a 1 x 3 convolution over pixels and channels. The interpolation points 0, 1, -1, 2, -1/2
    and infinity have a smaller rounding error than others (Barabasz et al., 2018, arXiv:1803.10986).

    In bfloat16 the transformed rows and their products are rounded too. The error is three times as large as in the
    plain convolution, and 1.6 times in the gradient of a whole network. Sums are in float32 or wider.

    It is fast only if a compiler fuses it. The names' suffixes are T = H / 4 tiles of four rows and P = 6 products.

    Args:
        x: (B, C, H, W) in channels-last memory format, where H is a multiple of 4.
        weight: (O, C, 3, 3).
        bias: (O,), or None.

    Returns:
        (B, O, H, W).
    """
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    wide = torch.promote_types(dtype, torch.float32)
    tiles_BT4WC = torch.unflatten(x.to(dtype).permute(0, 2, 3, 1), 1, (-1, TILE_ROWS))
    rows = tiles_BT4WC.unbind(dim=2)
    above = functional.pad(rows[-1][:, :-1], (0, 0, 0, 0, 1, 0))  # The last row of the tile before.
    below = functional.pad(rows[0][:, 1:], (0, 0, 0, 0, 0, 1))
    inputs = _transform(INPUT_TRANSFORM, [row.to(wide) for row in (above, *rows, below)])
    inputs_BTWPC = torch.stack([row.to(dtype) for row in inputs], dim=3)
    kernels = _transform(KERNEL_TRANSFORM, weight.unbind(dim=2))
    kernel_POC13 = torch.stack([row.to(dtype) for row in kernels])[:, :, :, None]
    products = functional.conv2d(
        inputs_BTWPC.flatten(3).permute(0, 3, 1, 2),
        kernel_POC13.flatten(0, 1),
        padding=(0, 1),
        groups=len(KERNEL_TRANSFORM),
    )
    products_BTWPO = torch.unflatten(products.permute(0, 2, 3, 1), 3, (len(KERNEL_TRANSFORM), -1))
    outputs = _transform(OUTPUT_TRANSFORM, [row.to(wide) for row in products_BTWPO.unbind(dim=3)])
    outputs_BT4WO = torch.stack([(row if bias is None else row + bias).to(dtype) for row in outputs], dim=2)
    return outputs_BT4WO.flatten(1, 2).permute(0, 3, 1, 2)


def _transform(matrix: Iterable[Sequence[float]], rows: Sequence[Tensor]) -> list[Tensor]:
    """Multiply a constant matrix by a vector of tensors, skipping products with 0 and 1."""
    return [
        reduce(add, (row if number == 1 else number * row for number, row in zip(line, rows, strict=True) if number))
        for line in matrix
    ]
