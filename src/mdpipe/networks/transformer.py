"""The transformer: pre-norm blocks of bidirectional attention and gated MLPs, with rotary positions and no biases.

Letters: B examples, L positions, D width, H heads.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from mdpipe.networks.dropout import kept_channels
from mdpipe.networks.initial import normal_
from mdpipe.networks.time import TIME_WIDTH, TimeEmbedding

ROTARY_BASE = 10_000.0
HIDDEN_MULTIPLE = 32
"""The MLP's hidden width, 8/3 of the width, is rounded up to a multiple of this."""


class Transformer(nn.Module):
    """A denoiser for sequences of up to `shape` tokens.

    Raises:
        ValueError: the heads do not divide the width into even parts.
    """

    def __init__(
        self,
        vocabulary: int,
        shape: tuple[int, ...],
        *,
        layers: int,
        heads: int,
        width: int,
        time_conditioning: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        if width % (2 * heads):
            raise ValueError(f"network.heads = {heads} does not divide network.width = {width} into even parts")
        self.length = math.prod(shape)
        self.dropout = dropout
        self.head_width = width // heads
        self.embedding = nn.Embedding(vocabulary + 1, width)
        self.time = TimeEmbedding() if time_conditioning else None
        branches: list[nn.Module] = []
        for _ in range(layers):
            branches += [Attention(width, heads), GatedMLP(width)]
        self.branches = nn.ModuleList(Branch(inner, width, time_conditioning) for inner in branches)
        self.norm = Norm(width, 2 if time_conditioning else 0)
        self.head = nn.Linear(width, vocabulary, bias=False)

    @property
    def dropout_channels(self):
        return len(self.branches) * self.embedding.embedding_dim if self.dropout else 0
