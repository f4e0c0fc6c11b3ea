"""The paper's transformer: pre-norm attention and gated MLPs, rotary position embeddings, no biases.

With equal weights it computes the same as the official implementation (google-deepmind/md4,
md4/networks/transformer.py), and dropout has the same sites: single elements of the embedding, if it is as wide as the
network, and of the attention probabilities, and whole channels of the output of every branch.

The settings `qk_norm`, `zero_init`, `mlp`, `value_embeddings` and `unet_skips` change it in ways that speed up language
models (Keller Jordan et al., modded-nanogpt, https://github.com/KellerJordan/modded-nanogpt); by default none is on.

Shapes: B batch, L length, D width, H heads, d channels of a head, V vocabulary, C conditioning vector.
"""

import math
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from mdpipe.networks.base import Network, Shape
from mdpipe.networks.layers import (
    AdaLayerNorm,
    Conditioning,
    QKNorm,
    attention,
    build_norm,
    channel_dropout,
    dropout,
    init_fan_in_,
    init_flax_defaults_,
    split_keys,
    zero_init_,
)
from mdpipe.params.networks import TransformerConfig

COND_DIM = 64
"""C."""

ROPE_BASE = 10_000.0
"""Ratio of the longest to the shortest wavelength of the rotary position embedding."""

NORM_EPS = 1e-5
"""Added to variances: `norm_eps` of the official implementation."""

RELU_SQUARED_RATIO = 4
"""Hidden channels per channel of the MLP with squared ReLU, which then has about as many weights as the gated one."""

MLP_MULTIPLE = 32
"""The MLP's hidden width, 8/3 D, is rounded up to a multiple of this."""


class Transformer(Network, config=TransformerConfig):
    """Transformer denoiser for sequences of at most L = prod(shape) tokens, bidirectional or causal."""

    config: TransformerConfig
    head: nn.Linear

    def __init__(
        self, config: TransformerConfig, vocab_size: int, shape: Shape, *, num_classes: int = 0, causal: bool = False
    ) -> None:
        super().__init__(config, vocab_size, shape, num_classes=num_classes, causal=causal)
        width, heads, layers, dropout = config.hidden_size, config.num_heads, config.num_layers, config.dropout
        self.max_seq_len = math.prod(shape)
        self.head_dim = width // heads
        self.embedding = nn.Embedding(vocab_size + 1, config.embed_dim or width)
        self.embed_proj = None if config.embed_dim is None else nn.Linear(config.embed_dim, width)
        self.conditioning = Conditioning(COND_DIM, time_conditioning=config.time_conditioning, num_classes=num_classes)
        cond_dim = self.conditioning.cond_dim
        build_mlp = GLU if config.mlp == "glu" else ReLUSquaredMLP
        self.attention = nn.ModuleList(
            ResidualBranch(Attention(width, heads, causal, dropout, config.qk_norm), width, cond_dim, dropout)
            for _ in range(layers)
        )
        self.mlp = nn.ModuleList(ResidualBranch(build_mlp(width), width, cond_dim, dropout) for _ in range(layers))
        # All tables in one, since the modules of a list would count as blocks.
        tables = config.value_embeddings
        self.value_embedding = nn.Embedding(vocab_size + 1, tables * width) if tables else None
        self.skip_weights = nn.Parameter(torch.empty(config.num_skips)) if config.num_skips else None
        self.norm = AdaLayerNorm(width, cond_dim, NORM_EPS)
        self.head = nn.Linear(width, vocab_size, bias=False)

    def init_weights(self, generator: torch.Generator) -> None:
        """Initialize as the official configs do: Flax's defaults, with the MLPs' variance multiplied by 2 / layers.

        The head and all modulations are 0, so that conditioned branches initially add 0.
        """
        for child in self.children():
            if child is not self.value_embedding:  # It starts at 0, and a draw would change all weights after it.
                init_flax_defaults_(child, generator)
        has_zero_init = self.config.zero_init and self.conditioning.cond_dim is None
        for module in self.modules():
            if isinstance(module, GLU | ReLUSquaredMLP):
                init_fan_in_(module.up_proj, generator, scale=2 / len(self.mlp))
                init_fan_in_(module.down_proj, generator, scale=2 / len(self.mlp))
            if isinstance(module, Attention | GLU | ReLUSquaredMLP) and has_zero_init:
                zero_init_(module.out_proj if isinstance(module, Attention) else module.down_proj)
        zero_init_(self.head, self.norm.modulation, *(branch.modulation for branch in [*self.attention, *self.mlp]))
        with torch.no_grad():
            if self.value_embedding is not None:
                self.value_embedding.weight.zero_()
            if self.skip_weights is not None:
                self.skip_weights.fill_(1)

    def forward(
        self, tokens: Tensor, t: Tensor, class_labels: Tensor | None = None, dropout_keys: Tensor | None = None
    ) -> Tensor:
        """Compute hidden states (B, L, D), as `Network.forward` says.

        Raises:
            ValueError: There are more tokens than prod(shape), or `Conditioning` refuses the class labels.
        """
        if tokens.shape[1] > self.max_seq_len:
            raise ValueError(f"the transformer takes at most {self.max_seq_len} tokens, not {tokens.shape[1]}")
        cos, sin = build_rope(tokens.shape[1], self.head_dim, tokens.device)
        cond = self.conditioning(tokens, t, class_labels)
        if cond is not None:
            cond = cond.sigmoid()  # The activation of the MLPs; the U-Net's residual blocks apply none.
        num_sites = 1 + 3 * len(self.mlp)
        keys = split_keys(dropout_keys, num_sites)
        x = self.embedding(tokens)
        x = dropout(x, keys[0], self.dropout) if self.embed_proj is None else self.embed_proj(x)
        added_values = self._added_values(tokens)
        skipped: list[Tensor] = []
        num_skips = self.config.num_skips
        for layer, (attention_branch, mlp_branch, probs_keys, attention_keys, mlp_keys) in enumerate(
            zip(self.attention, self.mlp, keys[1::3], keys[2::3], keys[3::3], strict=True)
        ):
            if self.skip_weights is not None and layer >= len(self.mlp) - num_skips:
                x = x + self.skip_weights[len(skipped) - 1] * skipped.pop()
            x = attention_branch(x, cond, attention_keys, probs_keys, cos, sin, added_values[layer])
            x = mlp_branch(x, cond, mlp_keys)
            if layer < num_skips:
                skipped.append(x)
        hidden: Tensor = self.norm(x, cond)
        return hidden

    def attention_size(self, length: int) -> tuple[int, int]:
        """Return the positions, which are the tokens, and the width of all layers' attention."""
        return length, len(self.attention) * self.config.hidden_size

    def _added_values(self, tokens: Tensor) -> list[Tensor | None]:
        """Return what is added to the values of each layer, (B, L, D) or None."""
        layers, tables = len(self.mlp), self.config.value_embeddings
        added: list[Tensor | None] = [None] * layers
        if self.value_embedding is not None:
            added[:tables] = added[layers - tables :] = self.value_embedding(tokens).chunk(tables, dim=-1)
        return added


class ResidualBranch(nn.Module):
    """Pre-norm residual branch: x + dropout(f(norm(x))) or, conditioned, adaLN-zero (DiT, Peebles and Xie, 2023).

    With shift, scale and gate linear in the conditioning vector, the latter is
    x + gate dropout(f(norm(x) (1 + scale) + shift)). The gate is initially 0.

    Args:
        inner: The module f.
        width: D.
        cond_dim: C, or None without conditioning.
        dropout: Rate of channel dropout.
    """

    def __init__(self, inner: nn.Module, width: int, cond_dim: int | None, dropout: float) -> None:
        super().__init__()
        self.inner = inner
        self.dropout = dropout
        self.norm = build_norm(width, cond_dim, NORM_EPS)
        self.modulation = None if cond_dim is None else nn.Linear(cond_dim, 3 * width)

    def forward(self, x: Tensor, cond: Tensor | None, keys: Tensor | None, *args: Any) -> Tensor:
        """Apply the branch to x (B, L, D), with cond (B, C), dropout keys (B, 2) and further arguments of `inner`."""
        h, gate = self.norm(x), None
        if self.modulation is not None:
            shift, scale, gate = self.modulation(cond)[:, None].chunk(3, dim=-1)
            h = h * (1 + scale) + shift
        update = channel_dropout(self.inner(h, *args), keys, self.dropout)
        return x + (update if gate is None else gate * update)


class Attention(nn.Module):
    """Multi-head self-attention with rotary position embeddings, bidirectional or causal.

    Args:
        width: D.
        heads: H.
        causal: True if a position attends only to itself and earlier positions.
        dropout: Rate of dropout of the attention probabilities.
        qk_norm: True to normalize queries and keys.
    """

    def __init__(self, width: int, heads: int, causal: bool, dropout: float, qk_norm: bool) -> None:
        super().__init__()
        self.heads = heads
        self.causal = causal
        self.dropout = dropout
        self.qkv_proj = nn.Linear(width, 3 * width, bias=False)
        self.out_proj = nn.Linear(width, width, bias=False)
        self.norm = QKNorm(width // heads) if qk_norm else None

    def forward(self, x: Tensor, keys: Tensor | None, cos: Tensor, sin: Tensor, added_value: Tensor | None) -> Tensor:
        """Compute attention (B, L, D).

        Args:
            x: (B, L, D).
            keys: Dropout keys (B, 2), or None for no dropout.
            cos: Cosines of `build_rope`.
            sin: Sines of `build_rope`.
            added_value: Added to the values of all heads, (B, L, D), or None.
        """
        qkv: Tensor = self.qkv_proj(x).unflatten(-1, (3 * self.heads, -1)).transpose(1, 2)
        # Not two slices, each of whose gradients would fill a tensor of the size of qkv with zeros.
        query_key, value = torch.split(qkv, [2 * self.heads, self.heads], dim=1)
        if self.norm is not None:
            query_key = torch.cat(self.norm(*query_key.chunk(2, dim=1)), dim=1)
        if added_value is not None:
            added: Tensor = added_value.unflatten(-1, (self.heads, -1))  # type: ignore[no-untyped-call]
            value = value + added.to(value.dtype).transpose(1, 2)
        query, key = apply_rope(query_key, cos, sin).chunk(2, dim=1)
        y = attention(query, key, value, causal=self.causal, dropout_keys=keys, dropout_rate=self.dropout)
        out: Tensor = self.out_proj(y.transpose(1, 2).flatten(2))
        return out


class ReLUSquaredMLP(nn.Module):
    """MLP with squared ReLU, W_out relu(W_in x)^2 (So et al., 2021, arXiv:2109.08668), without biases.

    Args:
        width: D.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up_proj = nn.Linear(width, RELU_SQUARED_RATIO * width, bias=False)
        self.down_proj = nn.Linear(RELU_SQUARED_RATIO * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the MLP to x (B, L, D)."""
        out: Tensor = self.down_proj(SquaredReLU.apply(self.up_proj(x)))  # type: ignore[no-untyped-call]
        return out


class SquaredReLU(torch.autograd.Function):
    """relu(x)^2 and its gradient 2 relu(x), in two thirds of the time that torch takes for power and ReLU in turn."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> Tensor:
        """Return relu(x)^2 for x of any shape."""
        positive = torch.relu(x)
        ctx.save_for_backward(positive)
        return positive * positive

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """Return the gradient in x."""
        (positive,) = ctx.saved_tensors
        doubled: Tensor = (grad * positive).mul_(2)
        return doubled


class GLU(nn.Sequential):
    """MLP with a gated linear unit, W_out (a * sigmoid(b)) with (a, b) = W_in x (Dauphin et al., 2017).

    Args:
        width: D.
    """

    up_proj: nn.Linear
    down_proj: nn.Linear

    def __init__(self, width: int) -> None:
        hidden_width = MLP_MULTIPLE * math.ceil(8 * width / 3 / MLP_MULTIPLE)
        up_proj = nn.Linear(width, 2 * hidden_width, bias=False)
        down_proj = nn.Linear(hidden_width, width, bias=False)
        super().__init__(OrderedDict(up_proj=up_proj, glu=nn.GLU(), down_proj=down_proj))


def build_rope(seq_len: int, head_dim: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Compute the rotation angles l base^(-2 i / d) of rotary position embeddings (Su et al., 2021, section 3.4.2).

    Args:
        seq_len: L.
        head_dim: d.
        device: Device of the result.

    Returns:
        Cosines and sines of position l and channel pair i, each (L, d / 2).
    """
    exponents = torch.arange(0, head_dim, 2, device=device) / head_dim
    angles = torch.arange(seq_len, device=device)[:, None] * ROPE_BASE**-exponents
    return angles.cos(), angles.sin()


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate channels i and i + d / 2 of x (..., L, d) as a pair by the angle of the position (L, d / 2)."""
    x1, x2 = x.chunk(2, dim=-1)
    rotated = torch.cat([x1 * cos - x2 * sin, x1 * sin + x2 * cos], dim=-1)
    return rotated.to(x.dtype)
