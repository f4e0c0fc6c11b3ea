r"""The bound on -log p(x_T | x_C), the targets T of a sequence given its context C, which stays visible.

Only targets are ever masked, so they are a separate masked diffusion, with the context as an input of its denoiser.
A Monte Carlo estimate is stratified as in `estimators`. In windows that overlap, each token of a text is a target once:

    sum_w -log p(x_T(w) | x_C(w)),  T(w) the last `stride` tokens of window w, C(w) the tokens of it before them

By the chain rule, that is the negative log-likelihood of a model that looks back no further than C(w). A smaller stride
makes the contexts longer and needs more windows.

Shapes: B rows of a batch, R requests, D samples of each, L length, N targets of a row.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mdpipe.data.dataset import EncodedDataset
from mdpipe.diffusion.denoiser import Denoiser
from mdpipe.diffusion.objectives.base import Objective
from mdpipe.diffusion.objectives.baselines import AnyOrder, Autoregressive
from mdpipe.diffusion.objectives.genmd4 import GenMD4
from mdpipe.diffusion.objectives.md4 import (
    AbsorbingObjective,
    chunked_token_loss,
    mask_exactly_k,
    masked_token_losses,
)
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.evaluation.estimate import Estimate, ratio_estimate, unigram_nll
from mdpipe.evaluation.estimators import EDGES, MaskCounts, at_least_one_mask, boundary_terms
from mdpipe.evaluation.likelihood import EXAMPLES_PER_READ, Likelihood, plan_mc_samples, zero_shot_bound

if TYPE_CHECKING:
    from mdpipe.params import EstimatorConfig

NLL_COEFFICIENT = 0.9
"""Coefficient of the unigram NLL as a control variate; with it, the default suite's subwords need a fourth of the
samples, and characters 0.7 to 0.8 of them."""

Cost = Callable[[Tensor, Tensor, Tensor], Tensor]
"""A sample of the bound, (B,), from x_0 (B, L), the targets (B, L) bool and uniforms (B, 2 + L), the first of them
v."""


def conditional_bound(
    objective: Objective,
    network: nn.Module,
    tokens: Sequence[NDArray[np.int64]],
    targets: Sequence[NDArray[np.bool_]],
    nll: NDArray[np.float64],
    num_mc_samples: int,
    batch_size: int,
    rng: CounterRNG,
    on_batch: Callable[[int, int], None] | None = None,
) -> list[Estimate]:
    """Bound -log p(x_T | x_C) of every request, in nats, with its Monte Carlo error.

    The samples of a request are a function of its index, whatever other requests there are and however they are
    batched.

    Args:
        objective: Gives the bound; moved to the network's device.
        network: A denoiser, put into evaluation mode.
        tokens: A sequence (L,) for each request, of at most the length that the network was trained on.
        targets: True where a token is bounded, (L,) for each request; the other tokens are its context.
        nll: Surprisal of each token by its frequency, (V,), for a control variate.
        num_mc_samples: Samples of each request, an even number; an autoregressive likelihood is exact and needs one.
        batch_size: Samples in a call of the network, of requests of equal length.
        rng: Source of the numbers and sets of masks.
        on_batch: Called after each batch with the numbers of samples that are done and of all.

    Raises:
        ValueError: A request has no target, the number of samples is odd, or the objective has no conditional bound for
            these targets.
    """
    if any(not is_target.any() for is_target in targets):
        raise ValueError("a request has no targets; each needs at least one token to bound")
    if not objective.is_exact and (num_mc_samples < 2 or num_mc_samples % 2):
        raise ValueError(f"num_mc_samples must be even, for two samples in each stratum; it is {num_mc_samples}")
    network.eval()
    device = next(network.parameters()).device
    token_nll = torch.from_numpy(nll).to(device)
    cost = conditional_cost(objective.to(device), cast("Denoiser", network), token_nll)
    num_mc_samples = 1 if objective.is_exact else num_mc_samples
    strata = 1 if objective.is_exact else num_mc_samples // 2
    edges = np.interp(np.linspace(0, 1, strata + 1), np.linspace(0, 1, len(EDGES)), EDGES)
    widths = np.diff(edges)
    costs_RD = np.zeros((len(tokens), num_mc_samples))
    lengths, done = np.array([len(row) for row in tokens]), 0
    for length in np.unique(lengths):
        # A row of a batch is a sample of a request.
        requests, samples = (
            array.ravel()
            for array in np.meshgrid(np.flatnonzero(lengths == length), range(num_mc_samples), indexing="ij")
        )
        for first in range(0, len(requests), batch_size):
            request_B, sample_B = requests[first : first + batch_size], samples[first : first + batch_size]
            x0, is_target = (
                torch.from_numpy(np.stack([rows[index] for index in request_B])).to(device)
                for rows in (tokens, targets)
            )
            u = rng.uniform(0, torch.from_numpy(request_B + (sample_B << 32)).to(device), 2 + int(length))
            stratum = sample_B % len(widths)
            edge, width = (torch.from_numpy(array[stratum]).to(device) for array in (edges, widths))
            u[:, 0] = edge + width * u[:, 0]
            with torch.inference_mode():
                costs_RD[request_B, sample_B] = cost(x0, is_target, u).double().cpu().numpy()
            done += len(request_B)
            if on_batch is not None:
                on_batch(done, costs_RD.size)
    repeats = num_mc_samples // len(widths)
    costs = costs_RD.reshape(len(tokens), repeats, len(widths))
    values = costs.mean(axis=1) @ widths
    errors = np.sqrt(costs.var(axis=1, ddof=1) @ np.square(widths) / repeats) if repeats > 1 else 0 * values
    return [Estimate(value, error) for value, error in zip(values.tolist(), errors.tolist(), strict=True)]


def conditional_cost(objective: Objective, model: Denoiser, token_nll: Tensor) -> Cost:
    """Return the samples of the objective's conditional bound."""
    elbo = type(objective).elbo
    if elbo is Autoregressive.elbo:
        return _left_to_right_cost(cast("Autoregressive", objective), model)
    if elbo is GenMD4.elbo:
        return _per_token_schedule_cost(cast("GenMD4", objective), model, token_nll)
    if elbo in (AbsorbingObjective.elbo, AnyOrder.elbo):
        return _any_order_cost(cast("AbsorbingObjective | AnyOrder", objective), model, token_nll)
    raise ValueError(
        f"the objective {objective.config.kind!r} has a bound of a form that is not known, so that it cannot be"
        " restricted to a part of the tokens"
    )


def _any_order_cost(objective: AbsorbingObjective | AnyOrder, model: Denoiser, token_nll: Tensor) -> Cost:
    r"""Return samples of the any-order bound of the targets, which every schedule's bound becomes for exact endpoints:

        sum_(n=1)^N E[mean over S of the token loss at x_S and t],  S a uniform set of n targets

    by an n uniform on 1, ..., N and the factor N. Since unmasking one target at a time is a model of them, this is a
    bound for any distribution of t | n, by Jensen's inequality. As in training, t is for n masks among all L tokens.
    """
    counts: dict[int, MaskCounts] = {}

    def cost(x0: Tensor, targets: Tensor, u: Tensor) -> Tensor:
        length, num_targets = x0.shape[1], targets.sum(dim=1)
        if length not in counts:
            counts[length] = MaskCounts(objective, length, x0.device)
        n = (1 + (u[:, 0] * num_targets).long()).minimum(num_targets)
        is_masked = mask_exactly_k(n, (1 - u[:, 2:]).masked_fill(~targets, 2))
        t = counts[length].time(n, u[:, 1])
        x_t = torch.where(is_masked, objective.mask_id, x0)
        nll = torch.where(targets, token_nll[x0], 0)
        mean_nll = nll.sum(dim=1) / num_targets
        # The mean of n targets, of a set that is uniform, has the expectation of the mean of all.
        control = NLL_COEFFICIENT * (torch.where(is_masked, nll, 0).sum(dim=1) / n - mean_nll)
        return num_targets * (masked_token_losses(objective, model, x_t, t, None, x0).sum(dim=1) / n - control)

    return cost


def _per_token_schedule_cost(objective: GenMD4, model: Denoiser, token_nll: Tensor) -> Cost:
    """Return samples of GenMD4's own bound, from masks of at least one target; the context costs nothing.

    It is a bound, since the divergences of the targets' transitions add up for any denoiser. Like the bound of a whole
    sequence it is met by the exact posterior at time t: the context's probability of being unmasked does not depend on
    the targets, so it cancels.
    """
    sample_masks = at_least_one_mask(objective, model)

    def cost(x0: Tensor, targets: Tensor, u: Tensor) -> Tensor:
        masks = sample_masks(x0, u, None, targets)
        boundary = boundary_terms(objective, x0.reshape(-1, 1)).total.view(x0.shape)
        control = NLL_COEFFICIENT * token_nll[x0] * masks.centered_weight
        return torch.where(targets, masks.weight * masks.loss + boundary - control, 0).sum(dim=1)

    return cost


def _left_to_right_cost(objective: Autoregressive, model: Denoiser) -> Cost:
    """Return the exact -log p of the targets by the chain rule; all of the context is to their left."""

    def cost(x0: Tensor, targets: Tensor, u: Tensor) -> Tensor:  # noqa: ARG001 (there is no randomness)
        if (targets[:, :-1] & ~targets[:, 1:]).any():
            raise ValueError(
                "a left-to-right model has the likelihood of the last tokens of a sequence only: it predicts no target"
                " from context to the right of it"
            )
        hidden = objective.hidden(model, x0)
        losses = chunked_token_loss(objective, model, hidden[targets], x0[targets])
        return torch.zeros_like(x0, dtype=torch.float64).masked_scatter(targets, losses.double()).sum(dim=1)

    return cost


@torch.inference_mode()
def is_greedy(objective: Objective, model: Denoiser, tokens: NDArray[np.int64], targets: NDArray[np.bool_]) -> bool:
    """Return True if the targets (L,) are what the model generates greedily from the context of tokens (L,).

    A masked model unmasks the most confident target in each network call, by its most likely token.
    """
    device = next(cast("nn.Module", model).parameters()).device
    x0, is_target = (torch.from_numpy(array).to(device) for array in (tokens, targets))
    if isinstance(objective, Autoregressive):
        choices = model.head(objective.hidden(model, x0[None])[0, is_target]).argmax(dim=1)
        return torch.equal(choices, x0[is_target])
    x_t = torch.where(is_target, objective.mask_id, x0)
    for num_masked in range(int(is_target.sum()), 0, -1):
        positions = (x_t == objective.mask_id).nonzero().squeeze(1)
        t = torch.tensor([num_masked / len(x0)], dtype=torch.float64, device=device)
        confidences, choices = model.head(model(x_t[None], t, None)[0, positions]).softmax(dim=1).max(dim=1)
        surest = confidences.argmax()
        position = positions[surest]
        if choices[surest] != x0[position]:
            return False
        x_t[position] = x0[position]
    return True


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
        objective: Gives the bound; moved to the network's device.
        network: A denoiser, put into evaluation mode.
        corpus: The text.
        stride: New tokens of a window; all tokens of the first window of the text are new, or of each document if
            these are evaluated separately.
        settings: The number of samples and `batch_size`. There is one estimator of conditional bounds.
        rng: Source of the masks, a function of window and sample.

    Raises:
        ValueError: The corpus is not text or has fewer than two windows, its windows are wrapped, the stride is not a
            number of tokens in a window, or the objective has no conditional bound.
    """
    if corpus.modality != "text" or stride == corpus.stream_tokens:
        return zero_shot_bound(objective, network, corpus, settings, rng)
    if corpus.wrap_ids:
        raise ValueError(f"the windows of {corpus.directory} are wrapped in end-of-text tokens, and cannot overlap")
    estimate = partial(_estimate, objective, network, corpus, stride, settings.batch_size)
    num_mc_samples, nfe = plan_mc_samples(estimate, settings, rng, is_exact=objective.is_exact)
    return replace(estimate(num_mc_samples, rng), nfe=nfe)


def _estimate(
    objective: Objective,
    network: nn.Module,
    corpus: EncodedDataset,
    stride: int,
    batch_size: int,
    num_mc_samples: int,
    rng: CounterRNG,
) -> Likelihood:
    starts, contexts, sizes = corpus.sliding_windows(stride)
    nll, per_example, variance = unigram_nll(corpus.unigram()), np.zeros(len(starts)), 0.0
    for first in range(0, len(starts), EXAMPLES_PER_READ):
        windows = range(first, min(first + EXAMPLES_PER_READ, len(starts)))
        tokens = [corpus.windows(starts[[window]], int(sizes[window]))[0] for window in windows]
        targets = [np.arange(sizes[window]) >= contexts[window] for window in windows]
        block_rng = rng.child(f"windows from {first}")
        bounds = conditional_bound(objective, network, tokens, targets, nll, num_mc_samples, batch_size, block_rng)
        per_example[first : first + EXAMPLES_PER_READ] = [bound.value for bound in bounds]
        variance += sum(bound.stderr**2 for bound in bounds)
    counts = sizes - contexts
    value = ratio_estimate(per_example, counts, corpus.window_clusters(stride)[1])
    num_tokens = int(counts.sum())
    return Likelihood(
        value=value.value,
        stderr=value.stderr,
        stderr_mc=float(np.sqrt(variance)) / num_tokens,
        reconstruction=0.0,
        prior=0.0,
        diffusion=value.value,
        tokens=num_tokens,
        examples=len(starts),
        mc_estimator="exact" if objective.is_exact else "exact_counts",
        num_mc_samples=num_mc_samples,
        nfe=num_mc_samples,
        per_example=per_example,
        sizes=counts,
    )
