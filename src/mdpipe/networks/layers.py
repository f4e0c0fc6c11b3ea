"""Layers that networks share: conditioning and its norms, attention, counter-based dropout, and initial weights.

Conditioning is one vector per example, from its time and its class, which modulates layer norms.

A dropout mask is a pure function of (seed, step, example, site, element). There is no generator state, so it depends
neither on the batch, the process or the device that computes it, nor on whether activations are recomputed. A training
step passes one key per example (`CounterRNG.keys`). A site is a place in a network where dropout applies: `split_keys`
derives a key for every site, and the site its mask from its key.

Masks come from Philox4x32 with 7 rounds, the fewest that pass BigCrush (Salmon et al., 2011, Table 2). A block of four
32-bit words serves eight elements, 16 bits each, so the rate is rounded to a multiple of 2^-16. This takes a dozen
integer operations per element, which a compiler fuses into one loop. Uncompiled, each is a pass over memory: training
then takes 8 % longer for a U-Net of width 128 and 11 % for a transformer of width 768 and length 256, on one core.

Initial weights are sampled with a network's own generator; the global random state is neither read nor changed.

Shapes: B batch, L length, H heads, d channels of a head, D width, C width of the conditioning vector.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from mdpipe.diffusion.rng import philox
from mdpipe.networks.runtime import ONEDNN_IS_FASTER

HIDDEN_RATIO = 4
"""Hidden channels per channel of the conditioning vector."""

LONGEST_WAVELENGTH = 10_000.0
"""Ratio of the longest to the shortest wavelength of the sinusoids (Vaswani et al., 2017)."""

TIME_SCALE = 1000.0
"""Times in [0, 1] are multiplied by this, because the sinusoids were designed for integer positions."""

MAX_UNFUSED_SCORES = 2**22
"""Largest number of scores of an example (16 MiB) at which plain matrix products may be faster on a CPU than torch's
fused kernel: in bfloat16 with a gradient, where the fused one takes 1.1 to 4.2 times as long, and in float32 by oneDNN,
whose price of a call is high for the many small products of the fused one (1.1 to 12 times). With MKL the fused kernel
is faster at all sizes. The batch size does not count: a micro-batch must use the same kernel as the whole batch."""

QK_NORM_EPS = 1e-5
"""Added to variances in `QKNorm`."""

PHILOX_ROUNDS = 7
NUM_LEVELS = 2**16
"""Number of values of the random integer that decides about an element."""

TRUNCATION = 2.0
"""Kernels are truncated at this many standard deviations, as in Flax."""

TRUNCATED_STD = 0.87962566103423978
"""Standard deviation of a standard normal distribution truncated there."""


class TimeEmbedding(nn.Module):
    """Embed time and class: [sin(1000 t f), cos(1000 t f), class vector] -> Linear(., 4 C) -> SiLU -> Linear(4 C, C).

    The frequencies are f_k = 10000^(-k / (C / 2 - 1)), k = 0, ..., C / 2 - 1. This is CondEmbedding of the official
    implementation (google-deepmind/md4, md4/models/backward.py). No activation follows the last layer; a network that
    needs one applies it.

    Args:
        width: C.
        class_width: Width of the class vector; 0 without classes.
    """

    def __init__(self, width: int, class_width: int) -> None:
        super().__init__()
        self.width = width
        self.up_proj = nn.Linear(width + class_width, HIDDEN_RATIO * width)
        self.down_proj = nn.Linear(HIDDEN_RATIO * width, width)

    def forward(self, t: Tensor, class_vector: Tensor | None) -> Tensor:
        """Embed times (B,) and class vectors (B, class_width), if there are any, as (B, C)."""
        half = self.width // 2
        exponents = torch.arange(half, device=t.device) / (half - 1)
        t = t.to(torch.promote_types(self.up_proj.weight.dtype, torch.float32))
        angles = TIME_SCALE * t[:, None] * torch.exp(-math.log(LONGEST_WAVELENGTH) * exponents)
        features = [angles.sin(), angles.cos()] if class_vector is None else [angles.sin(), angles.cos(), class_vector]
        embedded: Tensor = self.down_proj(functional.silu(self.up_proj(torch.cat(features, dim=-1))))
        return embedded


class Conditioning(nn.Module):
    """The conditioning vector (B, C) of times and class labels.

    With time conditioning it is the `TimeEmbedding`, of time and class if there are classes. Without it, it is the
    class embedding, or None if there are no classes either.

    Args:
        width: C.
        time_conditioning: True if the network depends on the time.
        num_classes: Number of classes; 0 for none.
    """

    def __init__(self, width: int, *, time_conditioning: bool, num_classes: int) -> None:
        super().__init__()
        self.time = TimeEmbedding(width, width if num_classes else 0) if time_conditioning else None
        self.no_class = num_classes
        """Label of "no class", the last row of the embedding (num_classes + 1, C)."""
        self.classes = nn.Embedding(num_classes + 1, width) if num_classes else None
        self.cond_dim = width if time_conditioning or num_classes else None
        """C, or None for a network without conditioning."""

    def forward(self, tokens: Tensor, t: Tensor, class_labels: Tensor | None) -> Tensor | None:
        """Compute the conditioning vector (B, C), or None for a network without conditioning.

        The range of the labels is checked only if they are on the CPU. On a GPU the check would synchronize in every
        call, and the embedding kernel asserts its indices itself.

        Raises:
            ValueError: There are labels but no classes, or the labels have the wrong shape, type or range.
        """
        class_vector: Tensor | None = None
        if self.classes is not None:
            if class_labels is None:
                class_labels = torch.full(tokens.shape[:1], self.no_class, device=tokens.device)
            _check_labels(class_labels, len(tokens), self.no_class)
            class_vector = self.classes(class_labels)
        elif class_labels is not None:
            raise ValueError("a network built with num_classes = 0 takes no class labels")
        return class_vector if self.time is None else self.time(t, class_vector)


def build_norm(width: int, cond_dim: int | None, eps: float) -> nn.Module:
    """Build the norm of a pre-norm branch.

    Args:
        width: D.
        cond_dim: Width of the conditioning vector, or None without conditioning.
        eps: Added to variances.

    Returns:
        An RMSNorm (Zhang and Sennrich, 2019), x / sqrt(mean(x^2) + eps) weight, without conditioning; a layer norm
        without parameters if the conditioning provides scale and shift.
    """
    if cond_dim is None:
        return nn.RMSNorm(width, eps=eps)
    return nn.LayerNorm(width, eps=eps, elementwise_affine=False)


class AdaLayerNorm(nn.Module):
    """Adaptive layer norm: norm(x) (1 + scale(cond)) + shift(cond) (DiT, Peebles and Xie, 2023), or an RMSNorm.

    Args:
        width: D.
        cond_dim: C, or None for an RMSNorm without conditioning.
        eps: Added to variances.
    """

    def __init__(self, width: int, cond_dim: int | None, eps: float) -> None:
        super().__init__()
        self.norm = build_norm(width, cond_dim, eps)
        self.modulation = None if cond_dim is None else nn.Linear(cond_dim, 2 * width)

    def forward(self, x: Tensor, cond: Tensor | None) -> Tensor:
        """Normalize x (B, L, D), given the conditioning vector `cond` (B, C) or None."""
        normalized: Tensor = self.norm(x)
        if self.modulation is None:
            return normalized
        modulation: Tensor = self.modulation(cond)[:, None]
        shift, scale = modulation.chunk(2, dim=-1)
        return normalized * (1 + scale) + shift


def _check_labels(labels: Tensor, batch_size: int, no_class: int) -> None:
    if labels.dtype != torch.int64 or labels.shape != (batch_size,):
        raise ValueError(
            f"the class labels are {labels.dtype} {tuple(labels.shape)}; they must be int64 ({batch_size},), one label"
            " per example"
        )
    if labels.device.type == "cpu" and not ((labels >= 0) & (labels <= no_class)).all():
        raise ValueError(
            f"the class labels range from {labels.min()} to {labels.max()}; a network built with num_classes ="
            f" {no_class} takes 0 to {no_class}, where {no_class} means no class"
        )


class QKNorm(nn.Module):
    """RMSNorm of queries and of keys over the channels of a head (Dehghani et al., 2023, arXiv:2302.05442).

    Scores are then at most sqrt(d) times the product of the two norms' largest weights, however large the projections.

    Args:
        head_dim: d.
    """

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.query, self.key = (nn.RMSNorm(head_dim, eps=QK_NORM_EPS) for _ in range(2))

    def forward(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Normalize queries and keys (..., d); the results have their types."""
        return self.query(query).to(query.dtype), self.key(key).to(key.dtype)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    causal: bool = False,
    dropout_keys: Tensor | None = None,
    dropout_rate: float = 0.0,
) -> Tensor:
    """Compute dropout(softmax(query key^T / sqrt(d))) value (Vaswani et al., 2017, eq. 1).

    Exponentials and sums are in float32 or wider. With dropout all scores are kept in memory, because no fused kernel
    accepts a mask of ours.

    Shapes: query, key, value and the result (B, H, L, d), dropout_keys (B, 2).
    """
    if not dropout_rate:
        dropout_keys = None
    is_slow_when_fused = query.device.type == "cpu" and (
        ONEDNN_IS_FASTER if query.dtype == torch.float32 else query.dtype == torch.bfloat16 and query.requires_grad
    )
    num_scores = query.shape[-3:-1].numel() * key.shape[-2]
    if dropout_keys is None and not (is_slow_when_fused and num_scores <= MAX_UNFUSED_SCORES):
        return functional.scaled_dot_product_attention(query, key, value, is_causal=causal)
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    if causal:
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(future, -torch.inf)
    probs = torch.softmax(scores, dim=-1)
    return (probs if dropout_keys is None else dropout(probs, dropout_keys, dropout_rate)) @ value


def split_keys(keys: Tensor | None, num_sites: int) -> list[Tensor | None]:
    """Derive independent keys (B, 2) for every site of a network from `keys` (B, 2); None for each from None."""
    if keys is None:
        return [None] * num_sites
    site = torch.arange(num_sites, device=keys.device)[None]
    zero = torch.zeros_like(site)
    word0, word1, _, _ = philox((site, zero, zero, zero), (keys[:, :1], keys[:, 1:]), PHILOX_ROUNDS)
    return list(torch.stack([word0, word1], dim=-1).unbind(dim=1))


def dropout_mask(keys: Tensor, rate: float, count: int) -> Tensor:
    """Compute the dropout mask of `count` elements per example; True elements are kept.

    Args:
        keys: (B, 2) keys of a site.
        rate: Probability of False.
        count: Number of elements per example.

    Returns:
        (B, count) bool.
    """
    block = torch.arange(-(-count // 8), device=keys.device)[None]
    zero = torch.zeros_like(block[:, :1])
    words = philox((block, zero, zero, zero), (keys[:, :1], keys[:, 1:]), PHILOX_ROUNDS)
    threshold = round(rate * NUM_LEVELS)
    mask = [half >= threshold for word in words for half in (word & (NUM_LEVELS - 1), word >> 16)]
    return torch.cat(mask, dim=1)[:, :count]


def dropout(x: Tensor, keys: Tensor | None, rate: float) -> Tensor:
    """Set each element of x to 0 with probability `rate` and scale the others by 1 / (1 - rate).

    Args:
        x: (B, ...) of any dtype.
        keys: (B, 2) keys of this site, or None for no dropout.
        rate: Dropout rate, below 1.

    Returns:
        Shape and dtype of x.
    """
    if keys is None or rate == 0:
        return x
    return _apply_mask(x, torch.unflatten(dropout_mask(keys, rate, x[0].numel()), 1, x.shape[1:]), rate)


def channel_dropout(x: Tensor, keys: Tensor | None, rate: float) -> Tensor:
    """Apply `dropout` to whole channels of x (B, L, C), each at all positions of an example at once."""
    if keys is None or rate == 0:
        return x
    return _apply_mask(x, dropout_mask(keys, rate, x.shape[2])[:, None], rate)


def _apply_mask(x: Tensor, mask: Tensor, rate: float) -> Tensor:
    # Scale by the rounded rate. A Python number is applied in float32 even where x is bfloat16.
    return x.where(mask, 0) * (NUM_LEVELS / (NUM_LEVELS - round(rate * NUM_LEVELS)))


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
