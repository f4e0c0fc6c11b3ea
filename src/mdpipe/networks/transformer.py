"""The transformer: pre-norm branches of attention and gated MLPs, rotary positions, no biases.

Attention is bidirectional, or causal for autoregressive models.

Letters: B examples, L positions, D width, H heads, V vocabulary.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mdpipe.networks.attention import attend
from mdpipe.networks.base import Network
from mdpipe.networks.dropout import kept_channels
from mdpipe.networks.initial import spread, zero
from mdpipe.networks.time import TIME_WIDTH, TimeEmbedding
from mdpipe.networks.told import ClassEmbedding, told

ROTARY_BASE = 10_000.0
"""Ratio of the longest to the shortest wavelength of the rotary positions."""

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
        self.embedding = nn.Embedding(vocabulary + 1, width)
        self.time = TimeEmbedding() if time_conditioning else None
        self.classes = ClassEmbedding(classes) if classes else None
        modulated = time_conditioning or classes > 0
        self.attention = nn.ModuleList(Branch(Attention(width, heads, causal), width, modulated) for _ in range(layers))
        self.mlp = nn.ModuleList(Branch(GatedMLP(width), width, modulated) for _ in range(layers))
        self.norm = Norm(width, modulated)
        self.head = nn.Linear(width, vocabulary, bias=False)

    @property
    def dropout_channels(self) -> int:
        """Uniforms an example that dropout takes: one a channel after every branch."""
        return 2 * len(self.mlp) * self.embedding.embedding_dim if self.dropout else 0

    def initialise(self, generator: torch.Generator) -> None:
        """Set the weights. The 2 x layers branches together add about as much variance as the embedding has."""
        spread(self, generator)
        branches = [*self.attention, *self.mlp]
        with torch.no_grad():
            for branch in branches:
                branch.inner.output.weight.mul_(len(branches) ** -0.5)
        zero(self.head, self.norm.modulation, *(branch.modulation for branch in branches))

    def forward(
        self, tokens: Tensor, time: Tensor, condition: Tensor | None = None, dropout: Tensor | None = None
    ) -> Tensor:
        """Hidden states (B, L, D).

        Args:
            tokens: (B, L) int64, at most V, which is the mask.
            time: (B,), read if the network is time-conditioned.
            condition: (B,) int64 class labels, the number of classes meaning "no class"; None if there is none at all.
            dropout: (B, dropout_channels) in [0, 1), or None for no dropout.

        Raises:
            ValueError: more tokens than the network is made for, or a condition that `told` refuses.
        """
        if tokens.shape[1] > self.length:
            raise ValueError(f"the transformer takes at most {self.length} tokens, not {tokens.shape[1]}")
        rotation = rotary(tokens.shape[1], self.head_width, tokens.device)
        modulator = told(self.time, self.classes, tokens, time, condition)
        kept = kept_channels(dropout, self.dropout, 2 * len(self.mlp))
        x = self.embedding(tokens)
        for attention, mlp, kept_attention, kept_mlp in zip(
            self.attention, self.mlp, kept[::2], kept[1::2], strict=True
        ):
            x = attention(x, modulator, kept_attention, *rotation)
            x = mlp(x, modulator, kept_mlp)
        hidden: Tensor = self.norm(x, modulator)
        return hidden


class Norm(nn.Module):
    """LayerNorm without weights, then, where the network is told something, a scale and a shift that depend on it."""

    def __init__(self, width: int, modulated: bool) -> None:
        super().__init__()
        self.width = width
        self.modulation = nn.Linear(TIME_WIDTH, 2 * width) if modulated else None

    def forward(self, x: Tensor, modulator: Tensor | None) -> Tensor:
        """(B, L, D) to the same; `modulator` is (B, 64) or None."""
        normal = functional.layer_norm(x, (self.width,))
        if self.modulation is None:
            return normal
        modulation: Tensor = self.modulation(modulator)[:, None]
        shift, scale = modulation.chunk(2, dim=-1)
        return normal * (1 + scale) + shift


class Branch(nn.Module):
    """x + inner(norm(x)), or x + gate * inner(norm(x) * (1 + scale) + shift) where told something (adaLN-zero).

    The gate is 0 at first, so such a network starts as its embedding and head alone.
    """

    def __init__(self, inner: nn.Module, width: int, modulated: bool) -> None:
        super().__init__()
        self.inner = inner
        self.width = width
        self.modulation = nn.Linear(TIME_WIDTH, 3 * width) if modulated else None

    def forward(self, x: Tensor, modulator: Tensor | None, kept: Tensor | None, *context: Any) -> Tensor:
        """(B, L, D) to the same; `modulator` is (B, 64) or None, `kept` (B, D) or None, `context` for the inner one."""
        normal = functional.layer_norm(x, (self.width,))
        if self.modulation is None:
            update: Tensor = self.inner(normal, *context)
        else:
            shift, scale, gate = self.modulation(modulator)[:, None].chunk(3, dim=-1)
            update = gate * self.inner(normal * (1 + scale) + shift, *context)
        if kept is not None:
            update = update * kept[:, None]
        return x + update


class Attention(nn.Module):
    """Attention of every position to every position, or, if causal, to itself and those before it."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads = heads
        self.causal = causal
        self.input = nn.Linear(width, 3 * width, bias=False)
        self.output = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        """(B, L, D) to the same; the rotation is as `rotary` gives it."""
        projected: Tensor = self.input(x).unflatten(-1, (3 * self.heads, -1)).transpose(1, 2)
        query_key, value = projected[:, : 2 * self.heads], projected[:, 2 * self.heads :]
        query, key = rotate(query_key, cosines, sines).chunk(2, dim=1)
        mixed = attend(query, key, value, causal=self.causal)
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
