"""Sample quality: the likelihood of samples under a reference model, and their entropy.

The two belong together: a sampler that repeats the most frequent token makes samples of very high likelihood.

Shapes: N samples, L length, V vocabulary.
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
def generative_bits(objective: Objective, network: nn.Module, tokens: Tensor) -> NDArray[np.float64]:
    """Compute -log2 p(x) / L of each sample under a reference model: the log2 of its generative perplexity.

    Args:
        objective: the reference model's, with an exact likelihood.
        network: the reference model's.
        tokens: (N, L) int64 below V.

    Returns:
        (N,) bits per token.

    Raises:
        ValueError: if the reference model only has a bound.
    """
    if not objective.is_exact:
        raise ValueError(f"the reference model must have an exact likelihood, and has the {objective.estimator}")
    device = next(network.parameters()).device
    network.eval()
    nats = []
    for first in range(0, len(tokens), BATCH_SIZE):
        batch = tokens[first : first + BATCH_SIZE]
        no_uniforms = torch.zeros(len(batch), 0, dtype=torch.float64, device=device)
        t = torch.zeros(len(batch), dtype=torch.float64, device=device)
        nats.append(objective.elbo(cast("Denoiser", network), batch.to(device), t, no_uniforms).total.cpu())
    bits: NDArray[np.float64] = torch.cat(nats).double().numpy() / (tokens.shape[1] * math.log(2))
    return bits


def unigram_entropy_per_sample(tokens: NDArray[np.int64]) -> NDArray[np.float64]:
    """Compute the mean of -log2 f(token) over each sample (N, L), where f is the token's frequency in all samples.

    The mean of the result (N,) is the unigram entropy of the samples in bits per token; its spread gives the standard
    error.
    """
    _, index, counts = np.unique(tokens, return_inverse=True, return_counts=True)
    bits = -np.log2(counts / tokens.size)
    mean: NDArray[np.float64] = bits[index.reshape(tokens.shape)].mean(axis=1)
    return mean
