r"""The bound of a text in windows that overlap: each token is evaluated once, given a context that stays visible.

    sum_w -log p(x_T(w) | x_C(w)),  T(w) the last `stride` tokens of window w, C(w) the tokens of it before them

By the chain rule, that is the negative log-likelihood of a model that looks back no further than C(w). A smaller stride
makes the contexts longer and needs more windows.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from mdpipe.data.dataset import EncodedDataset
from mdpipe.diffusion.objectives.base import Objective
from mdpipe.diffusion.objectives.genmd4 import GenMD4
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.evaluation.conditional import conditional_bound
from mdpipe.evaluation.estimate import PILOT_SAMPLES, choose_num_draws, ratio_estimate, unigram_surprisal
from mdpipe.evaluation.likelihood import BLOCK, Likelihood, zero_shot_bound

if TYPE_CHECKING:
    from mdpipe.params import EstimatorConfig


def sliding_bound(
    objective: Objective,
    network: nn.Module,
    corpus: EncodedDataset,
    stride: int,
    settings: "EstimatorConfig",
    rng: CounterRNG,
) -> Likelihood:
    """Estimate the bound on a text corpus that the model was not trained on, in windows `stride` tokens apart.

    A masked model has the any-order bound of the new tokens given their context, an autoregressive one the exact
    likelihood. With a stride of whole windows nothing is context, and this is `zero_shot_bound`.

    Args:
        objective: gives the bound; moved to the network's device.
        network: a denoiser, put into evaluation mode.
        corpus: the text.
        stride: new tokens of a window; all tokens of the first window of the text are new, or of each document if
            these are evaluated separately.
        settings: the number of draws and `batch_size`. There is one estimator of conditional bounds.
        rng: source of the masks, a function of window and draw.

    Raises:
        ValueError: the corpus is not text or has fewer than two windows, its windows are wrapped, the stride is not a
            number of tokens in a window, or the objective has no conditional bound.
    """
    if corpus.modality != "text" or stride == corpus.stream_tokens:
        return zero_shot_bound(objective, network, corpus, settings, rng)
    if corpus.wrap_ids:
        raise ValueError(f"the windows of {corpus.directory} are wrapped in end-of-text tokens, and cannot overlap")
    if objective.is_exact:
        return _estimate(objective, network, corpus, stride, 1, settings.batch_size, rng)
    if settings.num_mc_samples != "auto":
        return _estimate(objective, network, corpus, stride, settings.num_mc_samples, settings.batch_size, rng)
    pilot = _estimate(objective, network, corpus, stride, PILOT_SAMPLES, settings.batch_size, rng.child("pilot"))
    error = pilot.bits_per_token().stderr_mc
    num_draws = choose_num_draws(error, settings.half_width, settings.max_mc_samples)
    found = _estimate(objective, network, corpus, stride, num_draws, settings.batch_size, rng)
    return replace(found, nfe=PILOT_SAMPLES + num_draws)


def _estimate(
    objective: Objective,
    network: nn.Module,
    corpus: EncodedDataset,
    stride: int,
    num_draws: int,
    batch_size: int,
    rng: CounterRNG,
) -> Likelihood:
    starts, contexts, sizes = corpus.sliding_windows(stride)
    surprisal, per_example, variance = unigram_surprisal(corpus.unigram()), np.zeros(len(starts)), 0.0
    for first in range(0, len(starts), BLOCK):
        windows = range(first, min(first + BLOCK, len(starts)))
        tokens = [corpus.windows(starts[[window]], int(sizes[window]))[0] for window in windows]
        targets = [np.arange(sizes[window]) >= contexts[window] for window in windows]
        block_rng = rng.child(f"windows from {first}")
        bounds = conditional_bound(objective, network, tokens, targets, surprisal, num_draws, batch_size, block_rng)
        per_example[first : first + BLOCK] = [bound.value for bound in bounds]
        variance += sum(bound.stderr**2 for bound in bounds)
    counts = sizes - contexts
    value = ratio_estimate(per_example, counts, corpus.window_clusters(stride)[1])
    num_tokens = int(counts.sum())
    by_times = isinstance(objective, GenMD4)
    return Likelihood(
        value=value.value,
        stderr=value.stderr,
        stderr_mc=float(np.sqrt(variance)) / num_tokens,
        reconstruction=0.0,
        prior=0.0,
        diffusion=value.value,
        tokens=num_tokens,
        examples=len(starts),
        mc_estimator="exact" if objective.is_exact else "stratified_times" if by_times else "exact_counts",
        num_mc_samples=num_draws,
        nfe=num_draws,
        per_example=per_example,
        sizes=counts,
    )
