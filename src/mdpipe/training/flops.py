"""Floating-point operations of training, counted by torch from the network's shapes."""

from copy import deepcopy
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from mdpipe.networks.base import Network

BACKWARD = 2
"""A product's gradient takes two products of its size, one for each factor."""


def training_flops(network: Network, length: int) -> float:
    """Of a token: the dense products of a forward and a backward pass, the head's at every position included.

    What computes less, as a head at masked positions alone does, is thus credited with what it saves.
    """
    shapes: Any = deepcopy(network).to("meta")
    tokens = torch.zeros(1, length, dtype=torch.int64, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        shapes.head(shapes(tokens, torch.zeros(1, device="meta")))
    forward: int = counter.get_total_flops()
    return (1 + BACKWARD) * forward / length
