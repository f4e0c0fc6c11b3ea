"""Conditioning: one vector for each example that says which time it is and which class, where a network is given them.

Shapes: B batch, D width.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

HIDDEN_RATIO = 4
"""Hidden channels for each channel of the vector."""
LONGEST_WAVELENGTH = 10_000.0
TIME_SCALE = 1000.0
"""Times in [0, 1] are spread over this range before the sinusoids, which were made for whole positions."""


class ClassEmbedding(nn.Embedding):
    """A learned vector (D,) for each class, and one more, the last, for "no class"."""

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__(num_classes + 1, width)

    @property
    def no_class(self) -> int:
        """The label that stands for no class."""
        return self.num_embeddings - 1


class TimeEmbedding(nn.Module):
    """[sinusoids(1000 t), class vector] -> Linear(., 4 D) -> SiLU -> Linear(4 D, D), as in the paper's networks.

    Nothing follows the last layer: what activation there is belongs to the network that uses the vector.
    """

    def __init__(self, width: int, class_width: int) -> None:
        super().__init__()
        self.width = width
        self.input = nn.Linear(width + class_width, HIDDEN_RATIO * width)
        self.output = nn.Linear(HIDDEN_RATIO * width, width)

    def forward(self, time: Tensor, class_vector: Tensor | None) -> Tensor:
        """Embed times (B,) and class vectors (B, class_width), if there are any, as (B, D)."""
        half = self.width // 2
        exponents = torch.arange(half, device=time.device) / (half - 1)
        angles = TIME_SCALE * time.float()[:, None] * torch.exp(-math.log(LONGEST_WAVELENGTH) * exponents)
        parts = [angles.sin(), angles.cos()] if class_vector is None else [angles.sin(), angles.cos(), class_vector]
        embedded: Tensor = self.output(functional.silu(self.input(torch.cat(parts, dim=-1))))
        return embedded


class Conditioning(nn.Module):
    """The vector of time and class; None for a network that is given neither.

    A network with classes and without time is given the class vector as it is.
    """

    def __init__(self, width: int, *, time_conditioning: bool, num_classes: int) -> None:
        super().__init__()
        self.time = TimeEmbedding(width, width if num_classes else 0) if time_conditioning else None
        self.classes = ClassEmbedding(num_classes, width) if num_classes else None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to be conditioned on."""
        return self.time is None and self.classes is None

    def forward(self, tokens: Tensor, time: Tensor, labels: Tensor | None) -> Tensor | None:
        """Compute the vector (B, D). No labels mean "no class" for every example.

        Labels are compared with the number of classes only if they are on the CPU: on a GPU that would synchronize in
        every call, and the embedding's kernel checks its indices by itself.

        Args:
            tokens: (B, L).
            time: (B,).
            labels: (B,) int64 up to the number of classes, which is "no class", or None.

        Raises:
            ValueError: labels for a network without classes, or not one label for each example.
        """
        class_vector: Tensor | None = None
        if self.classes is not None:
            if labels is None:
                labels = torch.full(tokens.shape[:1], self.classes.no_class, device=tokens.device)
            _check(labels, len(tokens), self.classes.no_class)
            class_vector = self.classes(labels)
        elif labels is not None:
            raise ValueError("a network built with classes = 0 takes no condition")
        return class_vector if self.time is None else self.time(time, class_vector)


def _check(labels: Tensor, examples: int, no_class: int) -> None:
    if labels.dtype != torch.int64 or labels.shape != (examples,):
        raise ValueError(
            f"the condition is {labels.dtype} {tuple(labels.shape)}; it must be one int64 label for each of the"
            f" {examples} examples"
        )
    if labels.device.type == "cpu" and not ((labels >= 0) & (labels <= no_class)).all():
        raise ValueError(
            f"the condition has labels from {labels.min()} to {labels.max()}; a network built with classes ="
            f" {no_class} takes 0 to {no_class}, the last of which means no class"
        )
