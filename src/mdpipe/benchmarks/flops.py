"""Floating-point operations of a transformer's dense products, counted from its shape: two for a multiply and add.

What is no matrix product (norms, softmax, rotations, the draw) counts as nothing, so a share of the machine's peak
says how much of the time the products could not have done without.
"""

from torch import nn

from mdpipe.networks.transformer import Transformer


def trunk_flops(network: Transformer, length: int) -> int:
    """Of all layers for one row of L tokens: 2 L a weight, and 4 L^2 D a layer for the scores and the mixing.

    The network is told nothing: what turns a time or a class into scales and shifts is not counted.
    """
    linear = [module for module in network.modules() if isinstance(module, nn.Linear) and module is not network.head]
    weights = sum(module.weight.numel() for module in linear)
    width = network.embedding.embedding_dim
    return 2 * length * weights + 4 * length**2 * width * len(network.attention)


def head_flops(network: Transformer) -> int:
    """Of the logits at one position: 2 D V."""
    return 2 * network.head.weight.numel()
