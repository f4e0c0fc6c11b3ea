"""Keeping the class from the network now and then, so that one network is both the conditional and the plain model."""

import torch
from torch import Tensor

from mdpipe.diffusion.noise import Noise


def with_classes_dropped(labels: Tensor, share: float, no_class: int, noise: Noise, step: int, rows: range) -> Tensor:
    """Labels (B,) int64 of these rows of a global batch, each replaced by `no_class` with probability `share`.

    Which ones is a function of the noise, the step and the example alone.
    """
    uniforms = Noise(noise.seed, f"{noise.purpose}/classes").uniform(step, torch.arange(rows.start, rows.stop), 1)[:, 0]
    return torch.where(uniforms < share, no_class, labels)
