"""Convolutions of 3 x 3; in compiled code on a CPU with half the multiplications, by Winograd's minimal filtering.

F(4, 3) along the height makes four rows of outputs from six of inputs, d, with six products in place of twelve:

    y = OUTPUTS [(KERNEL g) * (INPUTS d)],

where g are the kernel's three rows and * multiplies row by row (Winograd 1980; Lavin and Gray 2016, arXiv:1509.09308,
section 4). A row times a row is a convolution of 1 x 3 over the pixels of one and all channels. The matrices belong to
the points 0, 1, -1, 2, -1/2 and infinity, which round better than others (Barabasz et al. 2018, arXiv:1803.10986).

Letters: B examples, H x W pixels, C channels in, O channels out, T = H / 4 tiles of four rows, P = 6 products.
"""

from collections.abc import Iterable, Sequence
from functools import reduce
from operator import add

import torch
from torch import Tensor, nn
from torch.nn import functional

ROWS = 4
"""Of outputs that are made together."""
INPUTS = (
    (1, 3 / 2, -2, -3 / 2, 1, 0),
    (0, 1 / 3, 5 / 6, 1 / 6, -1 / 3, 0),
    (0, 1 / 3, 1 / 6, -5 / 6, 1 / 3, 0),
    (0, -1 / 30, -1 / 15, 1 / 30, 1 / 15, 0),
    (0, -32 / 15, 16 / 15, 32 / 15, -16 / 15, 0),
    (0, 1, 3 / 2, -2, -3 / 2, 1),
)
KERNEL = ((1, 0, 0), (1, 1, 1), (1, -1, 1), (1, 2, 4), (1, -1 / 2, 1 / 4), (0, 0, 1))
OUTPUTS = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -1 / 2, 0), (0, 1, 1, 4, 1 / 4, 0), (0, 1, -1, 8, -1 / 8, 1))


class Convolution(nn.Conv2d):
    """A convolution of 3 x 3 that keeps the height and the width."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__(channels, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, O, H, W)."""
        if torch.compiler.is_compiling() and x.device.type == "cpu" and x.shape[2] % ROWS == 0:
            return winograd(x, self.weight, self.bias)
        return super().forward(x)


def winograd(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What conv2d(x, weight, bias, padding=1) is, but for rounding.

    In bfloat16 the rows that are multiplied and their products are rounded, too: the error is three times that of a
    plain convolution, and 1.6 times for the gradient of a whole network. Sums are taken in float32 at least.

    It is fast only where a compiler makes one loop of what is said in many lines here.

    Args:
        x: (B, C, H, W), with H a multiple of 4 and the channels last in memory.
        weight: (O, C, 3, 3).
        bias: (O,), or None.
    """
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    wide = torch.promote_types(dtype, torch.float32)
    tiles_BT4WC = torch.unflatten(x.to(dtype).permute(0, 2, 3, 1), 1, (-1, ROWS))
    inner = tiles_BT4WC.unbind(dim=2)
    above = functional.pad(inner[-1][:, :-1], (0, 0, 0, 0, 1, 0))  # The last row of the tile before.
    below = functional.pad(inner[0][:, 1:], (0, 0, 0, 0, 0, 1))
    inputs = _combined(INPUTS, [row.to(wide) for row in (above, *inner, below)])
    inputs_BTWPC = torch.stack([row.to(dtype) for row in inputs], dim=3)
    kernel_POC13 = torch.stack([row.to(dtype) for row in _combined(KERNEL, weight.unbind(dim=2))])[:, :, :, None]
    products = functional.conv2d(
        inputs_BTWPC.flatten(3).permute(0, 3, 1, 2), kernel_POC13.flatten(0, 1), padding=(0, 1), groups=len(KERNEL)
    )
    products_BTWPO = torch.unflatten(products.permute(0, 2, 3, 1), 3, (len(KERNEL), -1))
    outputs = _combined(OUTPUTS, [row.to(wide) for row in products_BTWPO.unbind(dim=3)])
    outputs_BT4WO = torch.stack([(row if bias is None else row + bias).to(dtype) for row in outputs], dim=2)
    return outputs_BT4WO.flatten(1, 2).permute(0, 3, 1, 2)


def _combined(matrix: Iterable[Sequence[float]], rows: Sequence[Tensor]) -> list[Tensor]:
    """For each line of the matrix the sum of the rows times its numbers."""
    return [
        reduce(add, (row if number == 1 else number * row for number, row in zip(line, rows, strict=True) if number))
        for line in matrix
    ]
