"""Quality of samples: how likely they are under a model with an exact likelihood, and how varied.

The two belong together: a sampler that repeats the commonest token makes samples that are very likely.
"""

import math
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mdpipe.diffusion.denoiser import Denoiser
from mdpipe.diffusion.objectives.base import Objective

BATCH_SIZE = 64


@torch.inference_mode()
def judged_bits(objective: Objective, network: nn.Module, tokens: Tensor) -> NDArray[np.float64]:
    """Exact bits per token of each sample: -log2 p(x) / L.

    Args:
        objective: the judge's, with an exact likelihood.
        network: the judge's.
        tokens: (N, L) int64 below V.

    Returns:
        (N,).

    Raises:
        ValueError: the judge only has a bound.
    """
    if not objective.exact:
        raise ValueError(f"samples are judged by an exact likelihood, and this model has a {objective.estimator}")
    device = next(network.parameters()).device
    network.eval()
    nats = []
    for first in range(0, len(tokens), BATCH_SIZE):
        batch = tokens[first : first + BATCH_SIZE]
        nothing = torch.zeros(len(batch), 0, dtype=torch.float64, device=device)
        time = torch.zeros(len(batch), dtype=torch.float64, device=device)
        nats.append(objective.bound(cast("Denoiser", network), batch.to(device), time, nothing).total.cpu())
    bits: NDArray[np.float64] = torch.cat(nats).double().numpy() / (tokens.shape[1] * math.log(2))
    return bits


def surprisals(tokens: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean of -log2 f(token) over each sample, f being how often the token occurs in all samples.

    Their mean is the entropy of the samples' tokens, in bits per token; their spread says how sure it is.

    Shapes: tokens (N, L), result (N,).
    """
    _, places, counts = np.unique(tokens, return_inverse=True, return_counts=True)
    cost = -np.log2(counts / tokens.size)
    mean: NDArray[np.float64] = cost[places.reshape(tokens.shape)].mean(axis=1)
    return mean
