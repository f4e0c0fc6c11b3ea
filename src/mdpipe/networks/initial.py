"""Initial weights, drawn from a generator of the network's own: the global random stream is neither read nor moved."""

import math

import torch
from torch import nn


@torch.no_grad()
def spread(network: nn.Module, generator: torch.Generator) -> None:
    """Give every layer of `network` the usual start, in the order of `named_modules`.

    Linear and convolution weights are normal with variance 1 / fan-in, which keeps the size of what passes through;
    embeddings are standard normal, biases 0, the weights of norms 1.
    """
    for layer in network.modules():
        match layer:
            case nn.Linear() | nn.Conv2d():
                fan_in = layer.weight[0].numel()
                layer.weight.normal_(0, fan_in**-0.5, generator=generator)
                if layer.bias is not None:
                    layer.bias.zero_()
            case nn.Embedding():
                layer.weight.normal_(0, 1, generator=generator)
            case nn.GroupNorm() | nn.LayerNorm() if layer.weight is not None:
                layer.weight.fill_(1)
                layer.bias.zero_()


@torch.no_grad()
def zero(*layers: nn.Linear | nn.Conv2d | None) -> None:
    """Make each layer that there is give 0 for any input."""
    for layer in layers:
        if layer is not None:
            layer.weight.zero_()
            if layer.bias is not None:
                layer.bias.zero_()


@torch.no_grad()
def order(embedding: nn.Embedding) -> None:
    """Start an embedding of V ordered values and a mask as cosines: near values begin near each other, the mask at 0.

    Channel k of value v is sqrt(2 / (1 + k)) cos(pi k (v + 1/2) / V), so a few slow channels hold most of the size.
    A start at random must first learn the order of the values, which takes many steps.
    """
    values = embedding.num_embeddings - 1
    channel = torch.arange(embedding.embedding_dim)
    angles = math.pi * channel * (torch.arange(values)[:, None] + 0.5) / values
    embedding.weight[:values] = (2 / (1 + channel)).sqrt() * angles.cos()
    embedding.weight[values] = 0
