"""Profile of a bound: bits by the mask_fraction of hidden tokens and by position, and the calibration of the
predictions.

All of it comes from the predictions that the bound is computed from, without another network call. For a causal
denoiser, a token and those after it count as masked: a denoiser that reads k of L tokens has L - k masked ones in
either case.

Every average is over numbers of masked tokens that are uniform from 1 to L, and over the masked tokens. The mean cross
entropy, times L, is then the diffusion part of MD4's bound, of the any-order bound, or -log p of a causal model.
With an objective or an estimator that samples a time, the average is over its times.

Shapes: B examples of a batch, N examples, L length, V vocabulary, P bins of positions, S bins of masked fractions,
C bins of probabilities for each of three ranges of masked fractions, K predictions of a batch.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mdpipe.diffusion.denoiser import Denoiser
from mdpipe.diffusion.objectives.base import ELBO, Objective
from mdpipe.evaluation.estimate import ratio_estimate

MASK_FRACTION_BINS = 20
"""Number S of bins of mask_fractions."""
CONFIDENCE_BINS = 10
"""Number C of bins of probabilities; the usual number is 10 to 15."""
PARTS = ("0 to 1/3", "1/3 to 2/3", "2/3 to 1")
"""Masked fractions by which calibration is split."""
ALL = "0 to 1"
MAX_POSITIONS = 128
"""Largest number P of bins of positions: longer windows have several positions per bin, which keeps files small and
errors low."""

Array = NDArray[np.float64]


class MaskFractionRow(NamedTuple):
    """The mean cross entropy of a masked token, in bits, for a bin of masked fractions."""

    mask_fraction: float
    """Mean fraction in the bin."""
    bits: float
    bits_stderr: float | None


class PositionRow(NamedTuple):
    """The mean contribution of a token to the bound, in bits, for the positions from `first` to `last`."""

    first: int
    """First position of the bin, counted from 1."""
    last: int
    bits: float
    bits_stderr: float | None
    tokens: int


class CalibrationRow(NamedTuple):
    """The frequency of the most probable token being the true one, for a bin of its probability."""

    mask_fraction: str
    """Element of `PARTS`, or `ALL`."""
    confidence: float
    """Mean probability of the most probable token."""
    frequency: float
    """Frequency of the true token being the most probable one."""
    stderr: float | None
    """Standard error of frequency - confidence."""
    weight: float
    """Fraction of the part's predictions."""
    calibration_error: float
    """Mean of |frequency - confidence| over the bins of the part, by their weights."""


class PredictionRecorder:
    """A denoiser that records how well it predicts x_0, wherever the objective reads its logits.

    The objective must read them at all masked positions, in order, as `masked_token_losses` does.
    """

    def __init__(self, denoiser: Denoiser, objective: Objective) -> None:
        self._denoiser, self._objective = denoiser, objective
        self.x0 = torch.empty(0, dtype=torch.int64)
        """(B, L) of the next calls."""
        self._count = 0

    def __call__(self, x_t: Tensor, t: Tensor, class_labels: Tensor | None) -> Tensor:
        """Return the denoiser's hidden states, and forget what was recorded."""
        is_causal = self._objective.is_causal
        self.is_masked = torch.ones_like(x_t, dtype=torch.bool) if is_causal else x_t == self._objective.mask_id
        # Of a fixed size, since a GPU would have to wait for the number of masks.
        self._positions = self.is_masked.flatten().nonzero_static(size=x_t.numel()).squeeze(1)
        self._count = 0
        self._chunks: list[tuple[Tensor, Tensor, Tensor]] = []
        return self._denoiser(x_t, t, class_labels)

    def head(self, hidden: Tensor) -> Tensor:
        """Return the denoiser's logits."""
        logits = self._denoiser.head(hidden)
        wide = logits.flatten(0, -2)
        wide = wide.to(torch.promote_types(wide.dtype, torch.float32))
        targets = self.x0.flatten()[self._positions[self._count : self._count + len(wide)]]
        self._count += len(wide)
        (top, token), log_total = wide.max(dim=1), wide.logsumexp(dim=1)
        cross_entropy = log_total - wide.gather(1, targets[:, None]).squeeze(1)
        self._chunks.append((cross_entropy, (top - log_total).exp(), token == targets))
        return logits

    def predictions(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return, for each prediction of the last call, its position in the flattened batch, the cross entropy in nats,
        the probability of the most probable token, and 1 where that one is the true token, (K,) each.
        """
        columns = (torch.cat(chunks).double() for chunks in zip(*self._chunks, strict=True))
        cross_entropy, confidence, is_right = columns
        return self._positions[: self._count], cross_entropy, confidence, is_right


class Profile:
    """Sums of predictions and costs over the samples of an estimate, and the tables that follow from them.

    Args:
        examples: N.
        seq_len: L of the longest example.
    """

    def __init__(self, examples: int, seq_len: int) -> None:
        self._edges = np.linspace(0, seq_len, min(seq_len, MAX_POSITIONS) + 1).astype(np.int64)
        self._costs, self._tokens = np.zeros((2, examples, len(self._edges) - 1))
        self._mask_fractions = np.zeros((3, examples, MASK_FRACTION_BINS))
        self._calibration = np.zeros((3, examples, len(PARTS) * CONFIDENCE_BINS))

    def watch(self, denoiser: Denoiser, objective: Objective) -> Denoiser:
        """Return the denoiser to call instead, which records its predictions."""
        self._recorder = PredictionRecorder(denoiser, objective)
        self._is_causal = objective.is_causal
        return self._recorder

    def begin_batch(self, x0: Tensor) -> None:
        """Prepare for the samples of a batch x_0 (B, L)."""
        self._recorder.x0 = x0
        self._batch_costs = x0.new_zeros(x0.shape, dtype=torch.float64)
        self._batch_mask_fractions = self._batch_costs.new_zeros(3, len(x0) * MASK_FRACTION_BINS)
        self._batch_calibration = self._batch_costs.new_zeros(3, len(x0) * len(PARTS) * CONFIDENCE_BINS)

    def add_sample(self, weight: Tensor, costs: Tensor) -> None:
        """Add the predictions of the last call, and the costs that follow from them.

        Args:
            weight: Weight of the sample in the mean over samples, (B,).
            costs: Nats of each token, (B, L).
        """
        self._batch_costs += weight[:, None] * costs
        length = costs.shape[1]
        positions, cross_entropy, confidence, is_right = self._recorder.predictions()
        row = positions // length
        if self._is_causal:
            num_masked, weight = length - positions % length, weight[row]
        else:
            in_row = self._recorder.is_masked.sum(dim=1)
            num_masked, weight = in_row[row], (weight * length / in_row)[row]
        # In integers: the bins are (0, 1 / S], (1 / S, 2 / S], ...
        mask_fraction = (num_masked * MASK_FRACTION_BINS - 1) // length
        part = (num_masked * len(PARTS) - 1) // length
        in_part = (confidence * CONFIDENCE_BINS).long().clamp(max=CONFIDENCE_BINS - 1)
        cell = (row * len(PARTS) + part) * CONFIDENCE_BINS + in_part
        by_mask_fraction = torch.stack([torch.ones_like(weight), num_masked / length, cross_entropy])
        by_confidence = torch.stack([torch.ones_like(weight), confidence, is_right])
        self._batch_mask_fractions.index_add_(1, row * MASK_FRACTION_BINS + mask_fraction, weight * by_mask_fraction)
        self._batch_calibration.index_add_(1, cell, weight * by_confidence)

    def split(self, elbo: ELBO) -> Tensor:
        """Divide one sample of a bound among its tokens, (B, L): the boundary terms evenly, the rest by cross entropy.

        This is exact where the objective's token loss is the cross entropy; otherwise it is a definition.
        """
        positions, cross_entropy, _, _ = self._recorder.predictions()
        length = self._batch_costs.shape[1]
        nats = torch.zeros_like(self._batch_costs).flatten().index_copy(0, positions, cross_entropy)
        nats = nats.view(-1, length)
        fraction = nats / nats.sum(dim=1, keepdim=True).clamp(min=torch.finfo(nats.dtype).tiny)
        return elbo.diffusion[:, None] * fraction + ((elbo.reconstruction + elbo.prior) / length)[:, None]

    def end_batch(self, indices: NDArray[np.int64], num_mc_samples: int, boundary: Tensor | float = 0.0) -> None:
        """Add the batch of the examples `indices` (B,): `boundary` (B, L) is what costs without a sample."""
        costs = (self._batch_costs / num_mc_samples + boundary).cpu().numpy()
        edges = self._edges[self._edges < costs.shape[1]]
        self._costs[indices, : len(edges)] = np.add.reduceat(costs, edges, axis=1)
        self._tokens[indices, : len(edges)] = np.diff(edges, append=costs.shape[1])
        for sums, of_batch in (
            (self._mask_fractions, self._batch_mask_fractions),
            (self._calibration, self._batch_calibration),
        ):
            sums[:, indices] = of_batch.view(len(sums), len(indices), -1).cpu().numpy()

    def mask_fractions(self, clusters: NDArray[np.int64] | None) -> Iterator[MaskFractionRow]:
        """Yield the mean cross entropy by masked fraction."""
        for weight, fraction, nats in np.moveaxis(self._mask_fractions, 2, 0):
            if weight.any():
                yield MaskFractionRow(float(fraction.sum() / weight.sum()), *_bits(nats, weight, clusters))

    def positions(self, per_example: Array, clusters: NDArray[np.int64] | None) -> Iterator[PositionRow]:
        """Yield the contribution of a token by position; over all tokens they add up to `per_example` (N,), in nats.

        A token's contribution is the mean over samples of its weighted cost. What the control variates of the bound
        change in an example's cost has the expectation 0 and is divided evenly among its tokens, so that each
        contribution stays unbiased.
        """
        change = (per_example - self._costs.sum(axis=1)) / self._tokens.sum(axis=1)
        costs = self._costs + change[:, None] * self._tokens
        for first, last, nats, tokens in zip(self._edges, self._edges[1:], costs.T, self._tokens.T, strict=False):
            yield PositionRow(int(first) + 1, int(last), *_bits(nats, tokens, clusters), int(tokens.sum()))

    def calibration(self, clusters: NDArray[np.int64] | None) -> Iterator[CalibrationRow]:
        """Yield the frequency of the most probable token being right by its probability, for all and by part."""
        by_part = self._calibration.reshape(3, len(self._calibration[0]), len(PARTS), CONFIDENCE_BINS)
        for name, sums in ((ALL, by_part.sum(axis=2)), *zip(PARTS, np.moveaxis(by_part, 2, 0), strict=True)):
            weight, confidence, frequency = sums.sum(axis=1)
            error = np.abs(frequency - confidence).sum() / weight.sum() if weight.any() else 0.0
            for index in np.flatnonzero(weight):
                of_examples, expected, right = sums[:, :, index]
                yield CalibrationRow(
                    mask_fraction=name,
                    confidence=float(confidence[index] / weight[index]),
                    frequency=float(frequency[index] / weight[index]),
                    stderr=_ratio(right - expected, of_examples, clusters)[1],
                    weight=float(weight[index] / weight.sum()),
                    calibration_error=float(error),
                )


def _ratio(totals: Array, weights: Array, clusters: NDArray[np.int64] | None) -> tuple[float, float | None]:
    """Return the ratio of the sums over examples and its standard error, None if only one cluster has a weight."""
    ratio = ratio_estimate(totals, cast("NDArray[np.int64]", weights), clusters)  # Weights need not be integers.
    has_weight = np.flatnonzero(weights) if clusters is None else np.unique(clusters[weights > 0])
    return ratio.value, ratio.stderr if len(has_weight) > 1 else None


def _bits(nats: Array, weights: Array, clusters: NDArray[np.int64] | None) -> tuple[float, float | None]:
    """Return `_ratio` in bits."""
    value, stderr = _ratio(nats, weights, clusters)
    return value / math.log(2), None if stderr is None else stderr / math.log(2)
