"""Sample quality: the likelihood of samples under a reference model, MAUVE, and their diversity.

Likelihood and diversity belong together: a sampler that repeats the most frequent token makes samples of very high
likelihood. A reference model is a run, or a causal language model of the library `transformers`; that library and the
package `mauve-text` are optional extras.

Shapes: N samples, L length, V vocabulary, D features.
"""

import math
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import groupby
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mdpipe.diffusion.denoiser import Denoiser
from mdpipe.diffusion.objectives.base import Objective
from mdpipe.diffusion.objectives.baselines import Autoregressive
from mdpipe.evaluation.estimate import Estimate, mean_estimate, ratio_estimate

BATCH_SIZE = 64
MIN_MAUVE_SAMPLES = 1000
"""Samples from which MAUVE is meaningful: its histograms have a bin for each ten, and with few it is far too high. The
paper has 5,000."""


@torch.inference_mode()
def generative_bits(
    objective: Objective, network: nn.Module, tokens: Tensor, class_labels: Tensor | None = None
) -> NDArray[np.float64]:
    """Compute -log2 p(x) / L of each sample under a reference model: the log2 of its generative perplexity.

    Args:
        objective: The reference model's, with an exact likelihood.
        network: The reference model's.
        tokens: (N, L) int64 below V.
        class_labels: (N,), for -log2 p(x | c) / L under a class-conditional reference model, or None.

    Returns:
        (N,) bits per token.

    Raises:
        ValueError: The reference model only has a bound.
    """
    if not objective.is_exact:
        raise ValueError(f"the reference model must have an exact likelihood, and has the {objective.estimator}")
    device = next(network.parameters()).device
    network.eval()
    nats = []
    for first in range(0, len(tokens), BATCH_SIZE):
        batch = tokens[first : first + BATCH_SIZE]
        u = torch.zeros(len(batch), 0, dtype=torch.float64, device=device)
        t = torch.zeros(len(batch), dtype=torch.float64, device=device)
        labels = None if class_labels is None else class_labels[first : first + BATCH_SIZE].to(device)
        nats.append(objective.elbo(cast("Denoiser", network), batch.to(device), t, u, labels).total.cpu())
    bits: NDArray[np.float64] = torch.cat(nats).double().numpy() / (tokens.shape[1] * math.log(2))
    return bits


@torch.inference_mode()
def final_features(objective: Autoregressive, network: nn.Module, tokens: Tensor) -> NDArray[np.float32]:
    """Return the reference model's hidden state at the end of each sample, (N, D), for MAUVE.

    It is the state that predicts the last token, from all tokens before it.

    Args:
        objective: The reference model's.
        network: The reference model's.
        tokens: (N, L) int64 below V.
    """
    device = next(network.parameters()).device
    network.eval()
    batches = torch.split(tokens.to(device), BATCH_SIZE)
    states = [objective.hidden(cast("Denoiser", network), batch)[:, -1].float().cpu() for batch in batches]
    features: NDArray[np.float32] = torch.cat(states).numpy()
    return features


class CausalLM:
    """A pretrained model and its tokenizer, in float32.

    Args:
        path: A folder, or the name of a model of the Hugging Face Hub.
        device: Device of the model.

    Raises:
        ValueError: `transformers` is not installed.
    """

    def __init__(self, path: str, device: torch.device) -> None:
        try:
            from transformers import AutoModelForCausalLM, AutoTokenizer
        except ImportError:
            raise ValueError(
                f"samplers: causal_lm {path!r} needs the library transformers; pip install 'mdpipe[transformers]'"
            ) from None
        self._tokenizer = AutoTokenizer.from_pretrained(path)
        self._device = device
        model: torch.nn.Module = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, use_safetensors=True)
        self._model: Any = model.to(device).eval()

    @torch.inference_mode()
    def generative_bits(self, texts: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Compute -log2 p(x) / L of each text, as MDLM and Duo do for generative perplexity.

        A text is tokenized by the model's tokenizer and cut to the model's context. Its first token is a condition
        only. The first end-of-text token is counted, later ones are not. Texts are scored one by one: with padding, a
        text's bits would depend on the lengths of the others.

        Returns:
            (N,) bits per counted token, and (N,) counted tokens; 0 and 0 for a text of less than two tokens.
        """
        bits, counts = np.zeros(len(texts)), np.zeros(len(texts), dtype=np.int64)
        for row, text in enumerate(texts):
            tokens = self._encode(text)
            if len(tokens) < 2:
                continue
            logits = self._model(tokens[None]).logits[0, :-1]
            nll = torch.nn.functional.cross_entropy(logits.double(), tokens[1:], reduction="none")
            is_eos = tokens == (-1 if self._tokenizer.eos_token_id is None else self._tokenizer.eos_token_id)
            is_counted = (~is_eos | (is_eos.cumsum(0) == 1))[1:]
            counts[row] = int(is_counted.sum())
            bits[row] = float(nll[is_counted].mean()) / np.log(2) if counts[row] else 0
        return bits, counts

    @torch.inference_mode()
    def features(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the last layer's hidden state at the last token of each text, (N, D); 0 for a text without tokens."""
        width = self._model.get_input_embeddings().weight.shape[1]
        states = torch.zeros(len(texts), width)
        for row, text in enumerate(texts):
            if len(tokens := self._encode(text)):
                states[row] = self._model(tokens[None], output_hidden_states=True).hidden_states[-1][0, -1]
        features: NDArray[np.float32] = states.numpy()
        return features

    def _encode(self, text: str) -> Tensor:
        """Return the tokens (L,) of a text, cut to the model's context."""
        limit = getattr(self._model.config, "max_position_embeddings", None)
        ids = self._tokenizer(text, truncation=limit is not None, max_length=limit)["input_ids"]
        return torch.tensor(ids, dtype=torch.int64, device=self._device)


def why_no_mauve(count: int) -> str | None:
    """Return why there is no MAUVE of this number of samples, or None."""
    if count < MIN_MAUVE_SAMPLES:
        return f"it needs {MIN_MAUVE_SAMPLES:,} samples and as many windows of held-out text, and there are {count:,}"
    if find_spec("mauve") is None:
        return "it needs the package mauve-text; pip install 'mdpipe[mauve]'"
    return None


def mauve(data: NDArray[np.floating], samples: NDArray[np.floating], seed: int) -> float:
    """Compute MAUVE (Pillutla et al. 2021, eq. 2), from 0 to 1; 1 if samples are distributed as the data.

    `mauve-text` gets hidden states, so that it loads no model and needs no network. The features are quantized together
    by k-means, and MAUVE is the area below the curve of divergences of both histograms from their mixtures. The
    package's settings are the paper's.

    Args:
        data: Features of held-out texts, (N, D).
        samples: Features of as many samples, (N, D).
        seed: Seed of k-means.
    """
    import faiss
    from mauve import compute_mauve

    faiss.omp_set_num_threads(1)  # The result is the same on any number of cores.
    found = compute_mauve(p_features=data.astype(np.float32), q_features=samples.astype(np.float32), seed=seed)
    return float(found.mauve)


def generative_perplexity(
    bits: NDArray[np.float64], counts: NDArray[np.int64], clusters: NDArray[np.int64] | None = None
) -> dict[str, Estimate]:
    """Estimate bits per token and the generative perplexity, by both of the conventions in use.

    Args:
        bits: Bits per token of each sample, (N,).
        counts: The number of its tokens, (N,); samples without tokens do not count.
        clusters: The cluster of each sample, (N,), such as its document; None if all are independent.

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
        "generative_perplexity": pooled.scale(math.log(2)).exponential(),
        "generative_perplexity_per_sample": mean_estimate(np.exp2(bits), clusters),
    }


def unigram_nll_per_sample(tokens: NDArray[np.int64]) -> NDArray[np.float64]:
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
