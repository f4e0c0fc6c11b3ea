"""Initial weights, sampled with a network's own generator; the global random state is neither read nor changed."""

import math

import torch
from torch import nn

TRUNCATION = 2.0
"""Kernels are truncated at this many standard deviations, as in Flax."""

TRUNCATED_STD = 0.87962566103423978
"""Standard deviation of a standard normal distribution truncated there."""


@torch.no_grad()
def init_flax_defaults_(network: nn.Module, generator: torch.Generator) -> None:
    """Initialize every layer of `network` as Flax does by default, in the order of `network.modules()`.

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
    """Draw a kernel from a truncated normal distribution of variance scale / fan-in (LeCun normal at scale 1)."""
    std = (scale / layer.weight[0].numel()) ** 0.5 / TRUNCATED_STD
    nn.init.trunc_normal_(layer.weight, 0, std, -TRUNCATION * std, TRUNCATION * std, generator)


@torch.no_grad()
def zero_init_(*layers: nn.Linear | nn.Conv2d | None) -> None:
    """Set the weight and bias of each layer to 0, skipping None."""
    for layer in layers:
        if layer is not None:
            layer.weight.zero_()
            if layer.bias is not None:
                layer.bias.zero_()


@torch.no_grad()
def init_ordinal_embedding_(embedding: nn.Embedding) -> None:
    """Initialize an embedding of V ordered values and a mask with cosines, so that near values are near.

    Channel k of value v is sqrt(2 / (1 + k)) cos(pi k (v + 1/2) / V); the slow channels have most of the norm. The
    mask is 0. With a random initialization the order of the values has to be learned first, which takes many steps.
    """
    values = embedding.num_embeddings - 1
    channel = torch.arange(embedding.embedding_dim)
    angles = math.pi * channel * (torch.arange(values)[:, None] + 0.5) / values
    embedding.weight[:values] = (2 / (1 + channel)).sqrt() * angles.cos()
    embedding.weight[values] = 0
