"""The group norm of the networks for pictures.

Shapes: B batch, H x W pixels, C channels, G groups of them.
"""

import torch
from torch import Tensor, nn

EPSILON = 1e-6
"""What is added to variances: the default of flax, which the paper's networks for images keep."""
NUM_GROUPS = 32
SMALL_GROUP = 4


def num_groups(width: int) -> int:
    """Return the number of groups for networks of this width: 32, as in the paper's, if each gets two channels or more.

    Narrower networks, and those whose width 32 does not divide, get groups of four channels.
    """
    return NUM_GROUPS if width % NUM_GROUPS == 0 and width > NUM_GROUPS else width // SMALL_GROUP


class GroupNorm(nn.GroupNorm):
    """A group norm in float32 whatever the precision of the rest (on a CPU its bfloat16 gradient is also slow)."""

    def __init__(self, groups: int, channels: int, *, affine: bool = True) -> None:
        super().__init__(groups, channels, eps=EPSILON, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same in float32."""
        if torch.compiler.is_compiling() and x.device.type == "cpu":
            with torch.autocast("cpu", enabled=False):
                return self._by_channel(x.float())
        return super().forward(x.float())

    def _by_channel(self, x: Tensor) -> Tensor:
        """The same as x scale + shift, with a scale and a shift for each channel of each example.

        As torch's kernel for channels that are last in memory does, it takes the variance as E x^2 - (E x)^2. Sums over
        a group's channels, and what all of them are given, are products with a small matrix: as an axis of its own a
        group would be the compiler's innermost loop, four channels short.
        """
        member_GC = torch.eye(self.num_groups, device=x.device).repeat_interleave(len(x[0]) // self.num_groups, dim=1)
        sums = torch.cat([x.sum(dim=(2, 3)), x.square().sum(dim=(2, 3))])
        mean, square = (sums @ member_GC.T / (x[0].numel() // self.num_groups)).chunk(2)
        inverse = ((square - mean.square()).clamp(min=0) + self.eps).rsqrt()
        weight_GC = member_GC if self.weight is None else member_GC * self.weight
        scale, shift = (torch.cat([inverse, -mean * inverse]) @ weight_GC).chunk(2)
        if self.bias is not None:
            shift = shift + self.bias
        return x * scale[:, :, None, None] + shift[:, :, None, None]
