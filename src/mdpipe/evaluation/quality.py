"""Sample quality: the likelihood of samples under a reference model, and their diversity.

The two belong together: a sampler that repeats the most frequent token makes samples of very high likelihood.

Shapes: N samples, L length, V vocabulary.
"""

import math
from itertools import groupby
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mdpipe.diffusion.denoiser import Denoiser
from mdpipe.diffusion.objectives.base import Objective
from mdpipe.diffusion.objectives.baselines import Autoregressive
from mdpipe.evaluation.estimate import Estimate, mean_estimate, ratio_estimate

BATCH_SIZE = 64


@torch.inference_mode()
def generative_bits(
    objective: Objective, network: nn.Module, tokens: Tensor, class_labels: Tensor | None = None
) -> NDArray[np.float64]:
    """Compute -log2 p(x) / L of each sample under a reference model: the log2 of its generative perplexity.

    Args:
        objective: the reference model's, with an exact likelihood.
        network: the reference model's.
        tokens: (N, L) int64 below V.
        class_labels: (N,), for -log2 p(x | c) / L under a class-conditional reference model, or None.

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
        labels = None if class_labels is None else class_labels[first : first + BATCH_SIZE].to(device)
        nats.append(objective.elbo(cast("Denoiser", network), batch.to(device), t, no_uniforms, labels).total.cpu())
    bits: NDArray[np.float64] = torch.cat(nats).double().numpy() / (tokens.shape[1] * math.log(2))
    return bits


@torch.inference_mode()
def final_features(objective: Autoregressive, network: nn.Module, tokens: Tensor) -> NDArray[np.float32]:
    """Return the reference model's hidden state at the end of each sample, (N, D), for MAUVE.

    It is the state that predicts the last token, from all tokens before it.

    Args:
        objective: the reference model's.
        network: the reference model's.
        tokens: (N, L) int64 below V.
    """
    device = next(network.parameters()).device
    network.eval()
    batches = torch.split(tokens.to(device), BATCH_SIZE)
    states = [objective.hidden(cast("Denoiser", network), batch)[:, -1].float().cpu() for batch in batches]
    features: NDArray[np.float32] = torch.cat(states).numpy()
    return features


def generative_perplexity(
    bits: NDArray[np.float64], counts: NDArray[np.int64], clusters: NDArray[np.int64] | None = None
) -> dict[str, Estimate]:
    """Estimate bits per token and the generative perplexity, by both of the conventions in use.

    Args:
        bits: bits per token of each sample, (N,).
        counts: the number of its tokens, (N,); samples without tokens do not count.
        clusters: the cluster of each sample, (N,), such as its document; None if all are independent.

    Returns:
        `bits`, the mean over the tokens of all samples; `generative_perplexity`, 2^bits; and
        `generative_perplexity_per_sample`, the mean over samples of 2^bits, SEDD's convention, which is larger if all
        samples are equally long (Jensen's inequality): unlikely samples weigh more.
    """
    has_tokens = counts > 0
    bits, counts = bits[has_tokens], counts[has_tokens]
    clusters = None if clusters is None else clusters[has_tokens]
    pooled = ratio_estimate(bits * counts, counts, clusters)
    return {
        "bits": pooled,
        "generative_perplexity": pooled.scaled(math.log(2)).exponential(),
        "generative_perplexity_per_sample": mean_estimate(np.exp2(bits), clusters),
    }


def unigram_surprisal_per_sample(tokens: NDArray[np.int64]) -> NDArray[np.float64]:
    """Compute the mean of -log2 f(token) over each sample (N, L), where f is the token's frequency in all samples.

    The mean of the result (N,) is the unigram entropy of the samples in bits per token; its spread gives the standard
    error.
    """
    _, index, counts = np.unique(tokens, return_inverse=True, return_counts=True)
    bits = -np.log2(counts / tokens.size)
    mean: NDArray[np.float64] = bits[index.reshape(tokens.shape)].mean(axis=1)
    return mean


def unigram_entropy_per_sample(tokens: NDArray[np.int64]) -> NDArray[np.float64]:
    """Compute the entropy (N,) in bits of the token frequencies within each sample (N, L)."""
    entropy = np.zeros(len(tokens))
    for row, sample in enumerate(tokens):
        frequencies = np.unique(sample, return_counts=True)[1] / sample.size
        entropy[row] = -(frequencies * np.log2(frequencies)).sum()
    return entropy


def ngram_ids(tokens: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Return a number for each n-gram within samples (N, L), the same for equal ones: (N, L - n + 1)."""
    ngrams = np.lib.stride_tricks.sliding_window_view(tokens, n, axis=1)
    _, ids = np.unique(ngrams.reshape(-1, n), axis=0, return_inverse=True)
    numbered: NDArray[np.int64] = ids.reshape(ngrams.shape[:2])
    return numbered


def distinct_ngrams(tokens: NDArray[np.int64], n: int) -> Estimate:
    """Compute distinct-n: the number of different n-grams in all samples, divided by the number of n-grams.

    It falls as samples are added, so compare equal numbers of samples. The standard error is the jackknife's, which
    leaves out one sample at a time: with it go the n-grams that no other sample has.
    """
    ids = ngram_ids(tokens, n)
    sample, ngram = np.unique(np.stack([np.indices(ids.shape)[0].ravel(), ids.ravel()]), axis=1)
    samples_with = np.bincount(ngram)
    own = np.bincount(sample[samples_with[ngram] == 1], minlength=len(ids))
    without_one = (samples_with.size - own) / (ids.size - ids.shape[1])
    return Estimate(samples_with.size / ids.size, math.sqrt((len(ids) - 1) * without_one.var()))


def repetition(tokens: NDArray[np.int64], n: int = 4) -> NDArray[np.float64]:
    """Compute the fraction (N,) of n-grams that occurred before in their sample: seq-rep-4 of Welleck et al. (2020)."""
    ids = np.sort(ngram_ids(tokens, n), axis=1)
    fraction: NDArray[np.float64] = (np.diff(ids, axis=1) == 0).sum(axis=1) / ids.shape[1]
    return fraction


def longest_run(tokens: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the length (N,) of each sample's longest run of one token."""
    return np.array([max(len([*run]) for _, run in groupby(sample)) for sample in tokens.tolist()], dtype=np.float64)
