"""Initial weights, drawn from a network's own generator: the global random stream is neither read nor moved."""

import math

import torch
from torch import nn

TRUNCATION = 2.0
"""Standard deviations at which kernels are cut off, as by flax."""
TRUNCATED_STD = 0.87962566103423978
"""Standard deviation of a standard normal cut off there."""


@torch.no_grad()
def init_weights(network: nn.Module, generator: torch.Generator) -> None:
    """Initialize every layer of `network` as flax does by default, in the order of `named_modules`.

    Kernels of linear layers and convolutions are truncated normal with variance 1 / fan-in, embeddings normal with
    variance 1 / width. Biases are 0 and the weights of norms 1.
    """
    for layer in network.modules():
        match layer:
            case nn.Linear() | nn.Conv2d():
                init_fan_in_(layer, generator)
                if layer.bias is not None:
                    layer.bias.zero_()
            case nn.Embedding():
                layer.weight.normal_(0, layer.embedding_dim**-0.5, generator=generator)
            case nn.GroupNorm() if layer.weight is not None:
                layer.weight.fill_(1)
                layer.bias.zero_()
            case nn.RMSNorm():
                layer.weight.fill_(1)


@torch.no_grad()
def init_fan_in_(layer: nn.Linear | nn.Conv2d, generator: torch.Generator, scale: float = 1.0) -> None:
    """Draw a kernel from a truncated normal distribution of variance scale / fan-in."""
    std = (scale / layer.weight[0].numel()) ** 0.5 / TRUNCATED_STD
    nn.init.trunc_normal_(layer.weight, 0, std, -TRUNCATION * std, TRUNCATION * std, generator)


@torch.no_grad()
def zero_init_(*layers: nn.Linear | nn.Conv2d | None) -> None:
    """Make each layer that there is return 0 for any input."""
    for layer in layers:
        if layer is not None:
            layer.weight.zero_()
            if layer.bias is not None:
                layer.bias.zero_()


@torch.no_grad()
def init_ordinal_embedding_(embedding: nn.Embedding) -> None:
    """Initialize an embedding of V ordered values and a mask as cosines: near values are near, the mask is 0.

    Channel k of value v is sqrt(2 / (1 + k)) cos(pi k (v + 1/2) / V), so a few slow channels hold most of the size.
    A random start must first learn the order of the values, which takes many steps.
    """
    values = embedding.num_embeddings - 1
    channel = torch.arange(embedding.embedding_dim)
    angles = math.pi * channel * (torch.arange(values)[:, None] + 0.5) / values
    embedding.weight[:values] = (2 / (1 + channel)).sqrt() * angles.cos()
    embedding.weight[values] = 0
