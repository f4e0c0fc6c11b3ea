r"""Control variates of a sample of exact counts: what its masks and the other samples predict about its cost.

A control variate has the expectation 0 given all other samples, so that any multiple of it leaves the estimate
unbiased. Its expectation over the masks is computed exactly, from the probabilities of the states of a token's
neighbors.

Shapes: B examples of a batch, N examples of the data set, D samples, L length, H strata, V vocabulary, C controls,
S states of a token's neighbors, which are a sum of 2^k over the unmasked ones.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mdpipe.evaluation.estimators import EDGES, NEIGHBORS, Array, Masks, mask_fraction, unmasked_in_states

PRIOR_COUNT = 10
"""Weight of the shorter context in an interpolated n-gram."""
NUM_STATES = (4, 2 ** len(NEIGHBORS))
"""States of the nearest neighbors on both sides, and of all."""
MISMATCH = (0.3, 0.3, 0.15, 0.15)
"""Two losses of a token correlate by exp(-sum of these), over the neighbors that are masked in one sample only.
Doubling all of them changes the variance on text by a few percent."""
NOISE = 0.3
"""Variance of a loss given the state of the neighbors, relative to the variance between states. From 0.1 to 1, the
variance of the estimate changes by a few percent."""
MAX_SAMPLES = 32
"""Samples that predict each other's losses at a time: the price grows with the square of their number."""
MAX_PAIRS = 2**18
"""Pairs of samples of all tokens at a time, which bounds the memory."""
SMOOTHNESS = 0.3
"""Weight of the curve's squared second differences against the squared residuals of the samples. From 0.01 to 1, the
variance changes by about a tenth."""
MAX_FITTED = 2**17
"""Samples that a curve is fitted to."""


def neighbor_nll(tokens: NDArray[np.int64], vocab_size: int) -> NDArray[np.float32]:
    """Return -log p of tokens (B, L) given each subset of their neighbors, (S, B, L), in nats.

    p is an interpolated n-gram of counts in the same tokens, without the one that it is the NLL of. The shorter
    context lacks the farthest neighbor; with neighbors on both sides, it is p(left) p(right) / p(those in both). It is
    a function of the data only, so that any p leaves the estimate unbiased.
    """

    def count(keys: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return keys that are renumbered, and how many others are equal to each."""
        _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
        return inverse.reshape(keys.shape), (counts[inverse] - 1).reshape(keys.shape)

    length, reach = tokens.shape[1], max(NEIGHBORS)
    padded = np.pad(tokens, ((0, 0), (reach, reach)), constant_values=vocab_size)
    contexts = [np.zeros_like(tokens)]
    p = np.empty((NUM_STATES[-1], *tokens.shape))
    p[0] = (count(tokens)[1] + 1) / (tokens.size - 1 + vocab_size)
    for state in range(1, len(p)):
        farthest = [max((k for k in range(side, len(NEIGHBORS), 2) if state >> k & 1), default=None) for side in (0, 1)]
        shorter = [state - 2**k for k in farthest if k is not None]
        prior = p[shorter[0]]
        if len(shorter) == 2:
            prior = np.minimum(prior * p[shorter[1]] / p[shorter[0] & shorter[1]], 1)
        last = state.bit_length() - 1
        neighbor = padded[:, reach + NEIGHBORS[last] :][:, :length]
        context, num_contexts = count(contexts[state - 2**last] * (vocab_size + 1) + neighbor)
        contexts.append(context)
        p[state] = (count(context * vocab_size + tokens)[1] + PRIOR_COUNT * prior) / (num_contexts + PRIOR_COUNT)
    nll: NDArray[np.float32] = -np.log(p).astype(np.float32)
    return nll


def control_by_neighbors(masks: Masks, nll: Tensor) -> Tensor:
    """Return control variates (2, B): the weighted NLL of masked tokens given unmasked neighbors, less its mean.

    The first one is given the nearest neighbors only.

    Args:
        masks: Masks of the sample.
        nll: (S, B, L).
    """
    states, probs = masks.states, masks.state_prob()
    controls = []
    for num_states in NUM_STATES:
        values = nll[:num_states].double()
        given = values.gather(0, (states % num_states)[None])[0]
        marginal = probs.view(-1, num_states, *states.shape).sum(dim=0)
        expected = masks.mask_prob * (marginal * values).sum(dim=0)
        controls.append((masks.weight * (torch.where(masks.is_masked, given, 0) - expected)).sum(dim=1))
    return torch.stack(controls)


def controls_by_other_samples(samples: Sequence[Masks], values: Sequence[Tensor]) -> Tensor:
    r"""Return control variates of each sample, (C, D, B): a token that is hard in other samples is hard in this one.

        control = sum_i weight_i (1[i masked] f_i(state_i) - E[1[i masked] f_i(state_i)])

    has the expectation 0 because f_i, the prediction for this sample, does not depend on it. It is the best linear one
    from token i's values in the other samples that mask it, each less the mean of all that are masked with it, if two
    values have the covariance k = exp(-sum of MISMATCH over the neighbors in different states), and a variance of
    NOISE besides. With K the covariance matrix of all samples, r their values and a = K^-1 r, the weights of the
    predictions without sample d are a - K^-1_d a_d / K^-1_dd.

    Args:
        samples: Samples of one batch, at most MAX_SAMPLES.
        values: Values of each sample, (C, B, L).
    """
    device = values[0].device
    is_unmasked = unmasked_in_states(device)
    mismatch = (is_unmasked[:, None] ^ is_unmasked).double()
    kernel = torch.exp(-mismatch @ torch.tensor(MISMATCH, dtype=torch.float64, device=device))
    residuals = []
    for masks, value in zip(samples, values, strict=True):
        masked = torch.where(masks.is_masked, value, 0)
        mean = masked.sum(dim=2, keepdim=True) / masks.is_masked.sum(dim=1, keepdim=True)
        residuals.append(torch.where(masks.is_masked, masked - mean, 0))
    is_masked = torch.stack([masks.is_masked for masks in samples], dim=2)
    states = torch.stack([masks.states for masks in samples], dim=2)
    weight = torch.stack([masks.weight.expand_as(masks.loss) for masks in samples], dim=2)
    prob = torch.stack([masks.mask_prob * masks.state_prob() for masks in samples], dim=3)
    num_tokens = math.ceil(MAX_PAIRS / len(samples) ** 2)
    chunks = (
        *(torch.split(tensor.flatten(0, 1), num_tokens) for tensor in (is_masked, states, weight)),
        *(torch.split(tensor.flatten(1, 2), num_tokens, dim=1) for tensor in (prob, torch.stack(residuals, dim=3))),
    )
    parts = [_control_of_tokens(kernel, *chunk) for chunk in zip(*chunks, strict=True)]
    controls: Tensor = torch.cat(parts, dim=1).view(-1, *is_masked.shape).sum(dim=2).transpose(1, 2)
    return controls


def _control_of_tokens(
    kernel: Tensor, is_masked: Tensor, states: Tensor, weight: Tensor, prob: Tensor, residual: Tensor
) -> Tensor:
    """Return the terms (C, N, D) of N tokens of any examples.

    Args:
        kernel: Covariance of two states, (S, S).
        is_masked: (N, D).
        states: (N, D).
        weight: (N, D).
        prob: Probability that the token is masked and its neighbors are in a state, (S, N, D).
        residual: Values of the masked tokens, 0 elsewhere, (C, N, D).
    """
    masked = is_masked.double()
    between = kernel[states[:, :, None], states[:, None, :]] * masked[:, :, None] * masked[:, None, :]
    covariance = between + torch.diag_embed(1 + (NOISE - 1) * masked)  # 1 keeps it regular where there is no value.
    inverse = torch.linalg.inv(covariance)
    # Sums of products: batches of small matrix products are slower.
    coefficients = (inverse * residual[:, :, None]).sum(dim=3)
    own = coefficients / inverse.diagonal(dim1=1, dim2=2)
    # Of the covariance of the value in sample i with the masked value of sample j, what exceeds its expectation.
    expected = (kernel @ prob.flatten(1)).view_as(prob).gather(0, states.T[:, :, None].expand(-1, *states.shape))
    excess = between - expected.transpose(0, 1) * masked[:, :, None]
    predicted: Tensor = (excess * coefficients[..., None]).sum(dim=2) - (excess * inverse).sum(dim=1) * own
    return predicted * weight


def diffusion_and_controls(samples: Sequence[Masks], nll: Tensor) -> Tensor:
    """Return the diffusion part of each sample, its control variates, and the excess of weight, (6, D, B).

    The controls are by the nearest and by all neighbors, and by the losses of other samples and their NLL given
    all neighbors. The excess of the weight of all masked tokens over its expectation is relative to it.

    Args:
        samples: Samples of one batch.
        nll: (S, B, L), of `neighbor_nll`.
    """
    diffusion = torch.stack([(masks.weight * masks.loss).sum(dim=1) for masks in samples])
    by_neighbors = torch.stack([control_by_neighbors(masks, nll) for masks in samples], dim=1)
    values = [torch.stack([masks.loss.double(), nll.gather(0, masks.states[None])[0].double()]) for masks in samples]
    num_groups = math.ceil(len(samples) / MAX_SAMPLES)
    groups = [slice(*(len(samples) * i // num_groups for i in (group, group + 1))) for group in range(num_groups)]
    by_samples = torch.cat([controls_by_other_samples(samples[group], values[group]) for group in groups], dim=1)
    excess = torch.stack([masks.centered_weight.sum(dim=1) / masks.expected_weight for masks in samples])
    return torch.cat([diffusion.double()[None], by_neighbors, by_samples, excess[None]])


def adjust_by_curve(y: Array, controls: Array, excess: Array, q: Array, strata: int) -> Array:
    r"""Subtract the cost that is expected of a sample, and add the expectation of what was subtracted.

        predicted(v) = curve(v) + level
        (y - sum_c coefficient_c control_c - predicted(v) (1 + excess)) dv/dq + H int_stratum predicted dv

    Curve and coefficients are fitted to the other half of the examples, since the cost depends on the masked fraction
    in much the same way in all of them; the level is the mean distance of the example's other samples from the curve.
    None of them depends on the sample, so that no bias arises.

    Args:
        y: Cost per token of each sample, (N, D); sample d is in stratum d mod H.
        controls: Control variates per token, (C, N, D).
        excess: Relative excess of the masked tokens' weight, (N, D).
        q: Positions of the samples, (N, D).
        strata: H.

    Returns:
        (N, D).
    """
    v, slope = mask_fraction(q)
    edges, _ = mask_fraction(np.linspace(0, 1, strata + 1))
    stratum = np.arange(y.shape[1]) % strata
    adjusted = np.empty_like(y)
    for fold in (0, 1):
        mine = slice(fold, None, 2)
        others = np.arange(1 - fold, len(y), 2)[: MAX_FITTED // y.shape[1]]
        curve, coefficients = _fit(y[others], controls[:, others], v[others], slope[others])
        predicted = np.interp(v[mine], EDGES, curve)
        distance, weight = slope[mine] * (y[mine] - predicted), slope[mine]
        level = (distance.sum(axis=1, keepdims=True) - distance) / (weight.sum(axis=1, keepdims=True) - weight)
        points = np.union1d(EDGES, edges)
        values = np.interp(points, EDGES, curve)
        integral = np.append(0, np.cumsum((values[1:] + values[:-1]) / 2 * np.diff(points)))
        expected = np.diff(integral[np.searchsorted(points, edges)])[stratum] + level * np.diff(edges)[stratum]
        controlled = y[mine] - np.tensordot(coefficients, controls[:, mine], axes=1)
        adjusted[mine] = slope[mine] * (controlled - (predicted + level) * (1 + excess[mine])) + strata * expected
    return adjusted


def _fit(y: Array, controls: Array, v: Array, slope: Array) -> tuple[Array, Array]:
    """Return a smooth curve at EDGES and the coefficients of the controls (C,), by least squares.

    A sample weighs as in the estimate. Each example has a separate level, which is eliminated by subtracting its means.
    """

    def mean(values: Array) -> Array:
        means: Array = np.einsum("ij,ij...->i...", slope / slope.sum(axis=1, keepdims=True), values)
        return means

    hats = np.stack([np.interp(v, EDGES, unit) for unit in np.eye(len(EDGES))], axis=2)
    design = np.concatenate([hats, np.moveaxis(controls, 0, 2)], axis=2)
    levels, design_means = mean(y), mean(design)
    rows = (slope[..., None] * (design - design_means[:, None])).reshape(-1, design.shape[2])
    bends = np.zeros((len(EDGES) - 2, design.shape[2]))
    bends[:, : len(EDGES)] = math.sqrt(SMOOTHNESS) * np.diff(np.eye(len(EDGES)), 2, axis=0)
    target = np.append((slope * (y - levels[:, None])).ravel(), np.zeros(len(bends)))
    solution = np.linalg.lstsq(np.concatenate([rows, bends]), target)[0]
    level = (levels - design_means @ solution).mean() if levels.size else 0
    return solution[: len(EDGES)] + level, solution[len(EDGES) :]
