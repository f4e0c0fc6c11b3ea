"""Floating-point operations of a network's dense products, two for each multiply and add.

What is no matrix product (norms, softmax, rotary positions, sampling) counts as nothing. The networks of this package
are counted from the shapes of their weights; any other by torch's FlopCounterMode, whose meta kernels import
torch._dynamo, which takes longer than all the counting.
"""

import math
from copy import deepcopy
from typing import Any

import torch
from torch import nn

from mdpipe.networks.base import Network
from mdpipe.networks.transformer import Transformer
from mdpipe.networks.unet import UNet
from mdpipe.networks.uvit import PATCH_SIZE, UViT

BACKWARD = 2
"""A product's gradient takes two products of its size, one for each factor."""
ONCE_PER_EXAMPLE = ("conditioning", "modulation")
"""Parts of the names of linear layers that are applied to the conditioning vector; all others run at every position."""


def training_flops(network: Network, length: int) -> float:
    """Return the operations per token of a forward and a backward pass, with the head at every position.

    A head that runs at masked positions only is thus credited with what it saves.
    """
    return (1 + BACKWARD) * forward_flops(network, length) / length


def forward_flops(network: Network, length: int) -> int:
    """Return the operations of a forward pass of one example of `length` tokens, with the head at every position.

    A linear layer takes 2 operations per weight and position, a convolution 2 per weight and pixel, and attention among
    P positions 4 P^2 D for its two products.
    """
    pixels = length // math.prod(network.shape[2:]) if isinstance(network, UNet | UViT) else 0
    # Not by isinstance, since a subclass may compute something else.
    if type(network) is Transformer:
        positions, attention_width = length, len(network.attention) * network.head.in_features
    elif type(network) is UNet:
        positions, attention_width = pixels, network.config.hidden_size
    elif type(network) is UViT:
        positions, attention_width = pixels // PATCH_SIZE**2, len(network.middle) * network.config.transformer_width
    else:
        return forward_flops_by_torch(network, length)
    flops = 4 * positions**2 * attention_width
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear):
            is_once = any(part in name for part in ONCE_PER_EXAMPLE)
            flops += 2 * module.weight.numel() * (1 if is_once else positions)
        elif isinstance(module, nn.Conv2d):
            flops += 2 * module.weight.numel() * pixels
    return flops


def forward_flops_by_torch(network: Network, length: int) -> int:
    """Return the same as `forward_flops` for any network, by running a copy on the meta device."""
    from torch.utils.flop_counter import FlopCounterMode

    shapes: Any = deepcopy(network).to("meta")
    tokens = torch.zeros(1, length, dtype=torch.int64, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        shapes.head(shapes(tokens, torch.zeros(1, device="meta")))
    forward: int = counter.get_total_flops()
    return forward
