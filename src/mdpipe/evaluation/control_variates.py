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
from torch.nn import functional

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


def controls_by_other_samples(samples: Sequence[Masks], values: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    r"""Return control variates of each sample, (C, D, B): a token that is hard in other samples is hard in this one.

        control = sum_i weight_i (1[i masked] f_i(state_i) - E[1[i masked] f_i(state_i)])

    has the expectation 0 because f_i, the prediction for this sample, does not depend on it. It is the best linear one
    from token i's values in the other samples that mask it, each less the mean of all that are masked with it, if two
    values have the covariance k = exp(-sum of MISMATCH over the neighbors in different states), and a variance of
    NOISE besides. With K the covariance matrix of all samples, r their values and a = K^-1 r, the weights of the
    predictions without sample d are a - K^-1_d a_d / K^-1_dd.

    The second result is the change of each control by each other sample, (C, B, D, D): the control of sample d less the
    one whose predictions are without sample e, too.

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
    num_tokens = math.ceil(MAX_PAIRS / (len(samples) ** 2 * len(is_masked)))
    chunks = (
        *(torch.split(tensor, num_tokens, dim=1) for tensor in (is_masked, states, weight)),
        *(torch.split(tensor, num_tokens, dim=2) for tensor in (prob, torch.stack(residuals, dim=3))),
    )
    parts = [_control_of_tokens(kernel, *chunk) for chunk in zip(*chunks, strict=True)]
    controls, changes = (torch.stack(sums).sum(dim=0) for sums in zip(*parts, strict=True))
    return controls.transpose(1, 2), changes


def _control_of_tokens(
    kernel: Tensor, is_masked: Tensor, states: Tensor, weight: Tensor, prob: Tensor, residual: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the sums over some of the tokens of the controls, (C, B, D), and of their changes, (C, B, D, D).

    Args:
        kernel: Covariance of two states, (S, S).
        is_masked: (B, L, D).
        states: (B, L, D).
        weight: (B, L, D).
        prob: Probability that the token is masked and its neighbors are in a state, (S, B, L, D).
        residual: Values of the masked tokens, 0 elsewhere, (C, B, L, D).
    """
    masked = is_masked.double()
    between = kernel[states[..., :, None], states[..., None, :]] * masked[..., :, None] * masked[..., None, :]
    covariance = between + torch.diag_embed(1 + (NOISE - 1) * masked)  # 1 keeps it regular where there is no value.
    inverse = torch.linalg.inv(covariance)
    diagonal = inverse.diagonal(dim1=-2, dim2=-1)
    # Sums of products: batches of small matrix products are slower.
    coefficients = (inverse * residual[..., None, :]).sum(dim=-1)
    # Of the covariance of the value in sample d with the masked value of sample e, what exceeds its expectation.
    expected = torch.einsum("st,tbld->sbld", kernel, prob).permute(1, 2, 3, 0)
    excess = between - expected.gather(-1, states[..., None, :].expand_as(between)) * masked[..., None, :]
    product = excess @ inverse
    own = product.diagonal(dim1=-2, dim2=-1) / diagonal
    predicted = (excess * coefficients[..., None, :]).sum(dim=-1) - own * coefficients
    # Without sample d, K^-1 has `left` at (e, e), and the weight of value e is `weight_left`.
    ratio = inverse / diagonal[..., None]
    left = diagonal[..., None, :] - inverse * ratio
    weight_left = coefficients[..., None, :] - ratio * coefficients[..., None]
    is_other = ~torch.eye(left.shape[-1], dtype=torch.bool, device=left.device)
    share = torch.where(is_other, (product - own[..., None] * diagonal[..., None] * ratio) / left, 0)
    changes = (weight[..., None] * share * weight_left).sum(dim=2)
    return (predicted * weight).sum(dim=2), changes


def diffusion_and_controls(samples: Sequence[Masks], nll: Tensor) -> tuple[Tensor, Tensor]:
    """Return the diffusion part of each sample, its control variates, and the excess of weight, (6, D, B).

    The controls are by the nearest and by all neighbors, and by the losses of other samples and their NLL given
    all neighbors. The excess of the weight of all masked tokens over its expectation is relative to it.

    The second result is the change of the controls by each other sample, (2, B, K, M, M), of K groups of M samples that
    predict each other; the last group is filled up with 0.

    Args:
        samples: Samples of one batch.
        nll: (S, B, L), of `neighbor_nll`.
    """
    diffusion = torch.stack([(masks.weight * masks.loss).sum(dim=1) for masks in samples])
    by_neighbors = torch.stack([control_by_neighbors(masks, nll) for masks in samples], dim=1)
    values = [torch.stack([masks.loss.double(), nll.gather(0, masks.states[None])[0].double()]) for masks in samples]
    size = group_shape(len(samples))[1]
    controls, changes = [], []
    for first in range(0, len(samples), size):
        of_group = slice(first, first + size)
        control, change = controls_by_other_samples(samples[of_group], values[of_group])
        controls.append(control)
        missing = size - change.shape[-1]
        changes.append(functional.pad(change, (0, missing, 0, missing)))
    excess = torch.stack([masks.centered_weight.sum(dim=1) / masks.expected_weight for masks in samples])
    terms = torch.cat([diffusion.double()[None], by_neighbors, torch.cat(controls, dim=1), excess[None]])
    return terms, torch.stack(changes, dim=2)


def group_shape(num_samples: int) -> tuple[int, int]:
    """Return K and M: the groups of samples that predict each other, and the samples of a group."""
    num_groups = math.ceil(num_samples / MAX_SAMPLES)
    return num_groups, math.ceil(num_samples / num_groups)


def adjust_by_curve(
    y: Array, controls: Array, excess: Array, changes: Array, q: Array, strata: int
) -> tuple[Array, Array]:
    r"""Subtract the cost that is expected of a sample, and add the expectation of what was subtracted.

        predicted(v) = curve(v) + level
        (y - sum_c coefficient_c control_c - predicted(v) (1 + excess)) dv/dq + H int_stratum predicted dv

    Curve and coefficients are fitted to the other half of the examples, since the cost depends on the masked fraction
    in much the same way in all of them. The level is the distance of the example's other samples from the curve, less
    the controls by neighbors, shrunk by the ratio of its variances within and between the examples of the other half.
    None of them depends on the sample, so that no bias arises.

    Two samples of an example depend on each other, because each predicts the other. With change_de the change of sample
    d by sample e as a predictor, its covariance with sample e is E[change_de change_ed]: without e, what the others
    predict of d has the expectation 0 given e. In H strata of R samples, the variance between the samples of a stratum
    is less by their covariance, so that the variance of the mean of D = H R samples is larger than the stratified one
    by

        1 / D^2 sum_{d != e} change_de change_ed (1 + [d and e in one stratum] / (R - 1))

    Args:
        y: Cost per token of each sample, (N, D); sample d is in stratum d mod H.
        controls: Control variates per token, (C, N, D), those by other samples last.
        excess: Relative excess of the masked tokens' weight, (N, D).
        changes: Change of the controls by other samples per token, by each of them, (2, N, K, M, M).
        q: Positions of the samples, (N, D).
        strata: H.

    Returns:
        The adjusted costs, (N, D), and what their covariances add to the variance of their mean, (N,).
    """
    v, slope = mask_fraction(q)
    edges, _ = mask_fraction(np.linspace(0, 1, strata + 1))
    stratum = np.arange(y.shape[1]) % strata
    width, points = strata * np.diff(edges)[stratum], np.union1d(EDGES, edges)
    by_neighbors, by_samples = controls[: -len(changes)], controls[-len(changes) :]
    adjusted, covariance = np.empty_like(y), np.empty(len(y))
    for fold in (0, 1):
        mine, others = np.arange(fold, len(y), 2), np.arange(1 - fold, len(y), 2)[: MAX_FITTED // y.shape[1]]
        curve, coefficients = fit_curve(y[others], controls[:, others], v[others], slope[others])
        of_neighbors, of_samples = np.split(coefficients, [len(by_neighbors)])
        predicted = np.interp(v, EDGES, curve) * (1 + excess) + np.tensordot(of_neighbors, by_neighbors, axes=1)
        distance = slope * (y - predicted)
        values = np.interp(points, EDGES, curve)
        integral = np.append(0, np.cumsum((values[1:] + values[:-1]) / 2 * np.diff(points)))
        expected = strata * np.diff(integral[np.searchsorted(points, edges)])[stratum]
        near, weight = distance[mine], slope[mine]
        ratio = variance_ratio(distance[others], slope[others])
        level = _level(near, weight, ratio)
        by_level = width - weight * (1 + excess[mine])
        by_others = by_level * level - weight * np.tensordot(of_samples, by_samples[:, mine], axes=1)
        adjusted[mine] = near + expected + by_others
        by_controls = np.tensordot(of_samples, changes[:, mine], axes=1)
        covariance[mine] = _covariance(near, weight, ratio, by_level, by_controls, strata)
    return adjusted, covariance


def _level(distance: Array, slope: Array, ratio: float) -> Array:
    """Return the level of an example by its samples without each of them, (N, D), from arguments of `_covariance`."""
    level: Array = (distance.sum(axis=1, keepdims=True) - distance) / (slope.sum(axis=1, keepdims=True) + ratio - slope)
    return level


def _covariance(distance: Array, slope: Array, ratio: float, by_level: Array, by_controls: Array, strata: int) -> Array:
    """Return what the covariances of samples add to the variance of their mean, (N,), see `adjust_by_curve`.

    Args:
        distance: Weighted distances from the curve, (N, D).
        slope: Their weights, (N, D).
        ratio: The ratio of variances by which levels are shrunk.
        by_level: Change of a sample's cost by the level, (N, D).
        by_controls: Change of a sample's controls by each other sample, (N, K, M, M).
        strata: H.
    """
    num_samples, shape = distance.shape[1], by_controls.shape[1:3]
    index = np.arange(math.prod(shape)).reshape(*shape, 1)
    is_other, is_same = (index != index.swapaxes(1, 2)), (index % strata == index.swapaxes(1, 2) % strata)

    def grouped(values: Array) -> Array:
        padded: Array = np.pad(values, ((0, 0), (0, index.size - num_samples)))
        return padded.reshape(-1, *shape, 1)

    def without_both(values: Array, ratio: float = 0) -> Array:
        total: Array = values.sum(axis=1)[:, None, None, None] + ratio
        return total - (grouped(values) + grouped(values).swapaxes(2, 3))

    level = grouped(_level(distance, slope, ratio))
    level_without_both = without_both(distance) / np.where(is_other, without_both(slope, ratio), 1)
    change = grouped(by_level) * (level - level_without_both) - grouped(slope) * by_controls
    products = np.where(is_other, change * change.swapaxes(2, 3), 0)
    covariance: Array = (products * (1 + is_same / (num_samples / strata - 1))).sum(axis=(1, 2, 3)) / num_samples**2
    return covariance


def variance_ratio(distance: Array, slope: Array) -> float:
    """Return the variance within examples by the variance of their levels, from weighted distances (N, D).

    It is infinite where the levels have no variance, and positive, since that of two samples is divided by.
    """
    num_samples = distance.shape[1]
    if not len(distance):
        return math.inf
    squares = np.square(distance)
    between = (np.square(distance.sum(axis=1)) - squares.sum(axis=1)).mean() / (num_samples * (num_samples - 1))
    within = squares.mean() - between * np.square(slope).mean()
    return max(within / between, 1e-6) if between > 0 else math.inf


def fit_curve(y: Array, controls: Array, v: Array, slope: Array) -> tuple[Array, Array]:
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
