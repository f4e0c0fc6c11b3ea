"""The time a network is told: sinusoids of many wavelengths through a small two-layer network."""

import math

import torch
from torch import Tensor, nn

TIME_WIDTH = 64
"""Sinusoids of the time, and channels of its embedding, in a transformer."""
HIDDEN_RATIO = 4
"""Hidden channels a channel of the embedding."""
LONGEST_WAVELENGTH = 10_000.0
TIME_SCALE = 1000.0
"""Times in [0, 1] are spread over this range before the sinusoids, which were made for whole positions."""


class TimeEmbedding(nn.Module):
    """sinusoids(1000 t) -> Linear(width, 4 width) -> SiLU -> Linear(4 width, width) -> sigmoid."""

    def __init__(self, width: int = TIME_WIDTH) -> None:
        super().__init__()
        self.input = nn.Linear(width, HIDDEN_RATIO * width)
        self.output = nn.Linear(HIDDEN_RATIO * width, width)

    def forward(self, time: Tensor) -> Tensor:
        """Times (B,) to (B, width)."""
        half = self.input.in_features // 2
        exponents = torch.arange(half, device=time.device) / (half - 1)
        angles = TIME_SCALE * time.float()[:, None] * torch.exp(-math.log(LONGEST_WAVELENGTH) * exponents)
        sinusoids = torch.cat([angles.sin(), angles.cos()], dim=-1)
        return torch.sigmoid(self.output(nn.functional.silu(self.input(sinusoids))))
