"""Conditioning: one vector per example from its time and its class, and the layer norms that it modulates.

Shapes: B batch, L length, D width, C width of the conditioning vector.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

HIDDEN_RATIO = 4
"""Hidden channels per channel of the conditioning vector."""

LONGEST_WAVELENGTH = 10_000.0
"""Ratio of the longest to the shortest wavelength of the sinusoids (Vaswani et al., 2017)."""

TIME_SCALE = 1000.0
"""Times in [0, 1] are multiplied by this, because the sinusoids were designed for integer positions."""


class ClassEmbedding(nn.Embedding):
    """Embedding (num_classes + 1, C) of class labels; the last row represents "no class".

    Args:
        num_classes: Number of classes.
        width: C.
    """

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__(num_classes + 1, width)

    @property
    def no_class(self) -> int:
        """Label that represents no class."""
        return self.num_embeddings - 1


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
        angles = TIME_SCALE * t.float()[:, None] * torch.exp(-math.log(LONGEST_WAVELENGTH) * exponents)
        features = [angles.sin(), angles.cos()] if class_vector is None else [angles.sin(), angles.cos(), class_vector]
        embedded: Tensor = self.down_proj(functional.silu(self.up_proj(torch.cat(features, dim=-1))))
        return embedded


class Conditioning(nn.Module):
    """The conditioning vector (B, C) of times and class labels.

    With time conditioning it is the `TimeEmbedding`, of time and class if there are classes. Without it, it is the
    class embedding, or None if there are no classes either.

    Args:
        width: C.
        time_conditioning: Whether the network depends on the time.
        num_classes: Number of classes; 0 for none.
    """

    def __init__(self, width: int, *, time_conditioning: bool, num_classes: int) -> None:
        super().__init__()
        self.time = TimeEmbedding(width, width if num_classes else 0) if time_conditioning else None
        self.classes = ClassEmbedding(num_classes, width) if num_classes else None
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
                class_labels = torch.full(tokens.shape[:1], self.classes.no_class, device=tokens.device)
            _check_labels(class_labels, len(tokens), self.classes.no_class)
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
