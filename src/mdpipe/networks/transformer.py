"""The paper's transformer: pre-norm branches of attention and gated MLPs, rotary positions, no biases.

Attention is bidirectional, or causal for autoregressive models. With equal weights it computes what the official
implementation does (google-deepmind/md4, md4/networks/transformer.py), and dropout has the same sites: single elements
of the embedding, if it is as wide as the network, and of the attention's probabilities, and whole channels of what each
branch adds.

Shapes: B batch, L length, D width, H heads, V vocabulary.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mdpipe.networks.attention import attend
from mdpipe.networks.base import Network
from mdpipe.networks.conditioning import Conditioning
from mdpipe.networks.dropout import channel_dropout, dropout, split_keys
from mdpipe.networks.initial import init_fan_in_, init_weights, zero_init_

COND_WIDTH = 64
"""Channels of the conditioning vector."""

ROTARY_BASE = 10_000.0
"""Ratio of the longest to the shortest wavelength of the rotary positions."""

EPSILON = 1e-5
"""What the norms add to variances: `norm_eps` of the official implementation."""

HIDDEN_MULTIPLE = 32
"""The MLP's hidden width, 8/3 of the width, is rounded up to a multiple of this."""


class Transformer(Network):
    """A denoiser for sequences of at most prod(shape) tokens.

    A causal one's hidden state at a position depends on the tokens up to that position alone.

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
        classes: int,
        causal: bool,
        embed_dim: int | None = None,
    ) -> None:
        super().__init__()
        if width % (2 * heads):
            raise ValueError(
                f"network.heads = {heads} does not divide network.width = {width} into even parts"
                " (rotary positions turn pairs of channels)"
            )
        self.vocabulary = vocabulary
        self.shape = shape
        self.length = math.prod(shape)
        self.head_width = width // heads
        self.dropout = dropout
        self.embedding = nn.Embedding(vocabulary + 1, embed_dim or width)
        self.embed_proj = None if embed_dim is None else nn.Linear(embed_dim, width)
        self.conditioning = Conditioning(COND_WIDTH, time_conditioning=time_conditioning, num_classes=classes)
        is_conditioned = not self.conditioning.is_empty
        self.attention = nn.ModuleList(
            Branch(Attention(width, heads, causal, dropout), width, is_conditioned, dropout) for _ in range(layers)
        )
        self.mlp = nn.ModuleList(Branch(GatedMLP(width), width, is_conditioned, dropout) for _ in range(layers))
        self.norm = AdaLN(width, is_conditioned)
        self.head = nn.Linear(width, vocabulary, bias=False)

    def initialise(self, generator: torch.Generator) -> None:
        """Initialize the weights as the official configs do, with the MLPs' variance times 2 / layers.

        If conditioned, every branch adds nothing at first.
        """
        init_weights(self, generator)
        for part in self.modules():
            if isinstance(part, GatedMLP):
                init_fan_in_(part.input, generator, scale=2 / len(self.mlp))
                init_fan_in_(part.output, generator, scale=2 / len(self.mlp))
        zero_init_(self.head, self.norm.modulation, *(branch.modulation for branch in [*self.attention, *self.mlp]))

    def forward(
        self, tokens: Tensor, time: Tensor, condition: Tensor | None = None, dropout_keys: Tensor | None = None
    ) -> Tensor:
        """Compute hidden states (B, L, D).

        Args:
            tokens: (B, L) int64, at most V, which is the mask.
            time: (B,), read if the network is time-conditioned.
            condition: (B,) int64 class labels, the number of classes meaning "no class"; None if there is none at all.
            dropout_keys: (B, 2) int64, or None for no dropout.

        Raises:
            ValueError: more tokens than the network is made for, or a condition that `Conditioning` refuses.
        """
        if tokens.shape[1] > self.length:
            raise ValueError(f"the transformer takes at most {self.length} tokens, not {tokens.shape[1]}")
        rotation = rotary(tokens.shape[1], self.head_width, tokens.device)
        cond = self.conditioning(tokens, time, condition)
        if cond is not None:
            cond = cond.sigmoid()  # The activation of the gated MLPs. The networks for images have none here.
        keys = split_keys(dropout_keys if self.dropout else None, 1 + 3 * len(self.mlp))
        x = self.embedding(tokens)
        x = dropout(x, keys[0], self.dropout) if self.embed_proj is None else self.embed_proj(x)
        for attention, mlp, of_probabilities, of_attention, of_mlp in zip(
            self.attention, self.mlp, keys[1::3], keys[2::3], keys[3::3], strict=True
        ):
            x = attention(x, cond, of_attention, of_probabilities, *rotation)
            x = mlp(x, cond, of_mlp)
        hidden: Tensor = self.norm(x, cond)
        return hidden


def norm(width: int, is_conditioned: bool) -> nn.Module:
    """Return an RMSNorm, or, if its scale comes from the conditioning vector, a LayerNorm without weights."""
    if is_conditioned:
        return nn.LayerNorm(width, eps=EPSILON, elementwise_affine=False)
    return nn.RMSNorm(width, eps=EPSILON)


class AdaLN(nn.Module):
    """A norm, then, if conditioned, a scale and a shift that depend on the conditioning vector."""

    def __init__(self, width: int, is_conditioned: bool) -> None:
        super().__init__()
        self.norm = norm(width, is_conditioned)
        self.modulation = nn.Linear(COND_WIDTH, 2 * width) if is_conditioned else None

    def forward(self, x: Tensor, cond: Tensor | None) -> Tensor:
        """(B, L, D) to the same; `cond` is (B, 64) or None."""
        normal: Tensor = self.norm(x)
        if self.modulation is None:
            return normal
        modulation: Tensor = self.modulation(cond)[:, None]
        shift, scale = modulation.chunk(2, dim=-1)
        return normal * (1 + scale) + shift


class Branch(nn.Module):
    """x + drop(inner(norm(x))), or x + gate * drop(inner(norm(x) * (1 + scale) + shift)) if conditioned (adaLN-zero).

    The gate is 0 at first, so such a network starts as its embedding and head alone.
    """

    def __init__(self, inner: nn.Module, width: int, is_conditioned: bool, dropout: float) -> None:
        super().__init__()
        self.inner = inner
        self.dropout = dropout
        self.norm = norm(width, is_conditioned)
        self.modulation = nn.Linear(COND_WIDTH, 3 * width) if is_conditioned else None

    def forward(self, x: Tensor, cond: Tensor | None, keys: Tensor | None, *context: Any) -> Tensor:
        """(B, L, D) to the same; `cond` is (B, 64) or None, `keys` (B, 2) or None, `context` for the inner module."""
        if self.modulation is None:
            return x + channel_dropout(self.inner(self.norm(x), *context), keys, self.dropout)
        shift, scale, gate = self.modulation(cond)[:, None].chunk(3, dim=-1)
        update: Tensor = self.inner(self.norm(x) * (1 + scale) + shift, *context)
        gated: Tensor = gate * channel_dropout(update, keys, self.dropout)
        return x + gated


class Attention(nn.Module):
    """Attention of every position to every position, or, if causal, to itself and those before it."""

    def __init__(self, width: int, heads: int, causal: bool, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.causal = causal
        self.dropout = dropout
        self.input = nn.Linear(width, 3 * width, bias=False)
        self.output = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, keys: Tensor | None, cosines: Tensor, sines: Tensor) -> Tensor:
        """(B, L, D) to the same; `keys` are (B, 2) or None, and the rotation is as `rotary` gives it."""
        projected: Tensor = self.input(x).unflatten(-1, (3 * self.heads, -1)).transpose(1, 2)
        query_key, value = projected[:, : 2 * self.heads], projected[:, 2 * self.heads :]
        query, key = rotate(query_key, cosines, sines).chunk(2, dim=1)
        mixed = attend(query, key, value, causal=self.causal, dropout_keys=keys, rate=self.dropout)
        update: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return update


class GatedMLP(nn.Module):
    """output(sigmoid(gate) * value): a gated linear unit."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = HIDDEN_MULTIPLE * math.ceil(8 * width / 3 / HIDDEN_MULTIPLE)
        self.input = nn.Linear(width, 2 * hidden, bias=False)
        self.output = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, D) to the same."""
        update: Tensor = self.output(functional.glu(self.input(x)))
        return update


def rotary(length: int, head_width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines, each (L, head_width / 2), of the angles by which rotary positions turn pairs of channels."""
    exponents = torch.arange(0, head_width, 2, device=device) / head_width
    angles = torch.arange(length, device=device)[:, None] * ROTARY_BASE**-exponents
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turn channel i of x (..., L, head_width) against channel i + head_width / 2 by the position's angle."""
    first, second = x.chunk(2, dim=-1)
    turned = torch.cat([first * cosines - second * sines, first * sines + second * cosines], dim=-1)
    return turned.to(x.dtype)
