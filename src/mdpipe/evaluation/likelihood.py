"""The likelihood bound of a whole split or corpus, with its standard error.

Each example gets `num_mc_samples` samples of (time, mask) from one of the `estimators`, each a function of the seed,
the sample and the example. The variance between the samples of a stratum gives the Monte Carlo error.

An objective with an exact likelihood is evaluated once for each example, without Monte Carlo error.

Shapes: B examples of a batch, N examples of the data set, D samples, H strata, R = D / H samples of each, L length.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mdpipe.diffusion.denoiser import Denoiser
from mdpipe.diffusion.objectives.base import Objective
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.evaluation.control_variates import adjust_by_curve, diffusion_and_controls, group_shape, neighbor_nll
from mdpipe.evaluation.estimate import PILOT_SAMPLES, Estimate, choose_num_mc_samples, ratio_estimate
from mdpipe.evaluation.estimators import (
    Array,
    EstimatorName,
    MaskSampler,
    boundary_terms,
    estimator_of,
    exact_counts,
    mask_fraction,
    num_strata,
)
from mdpipe.evaluation.profile import Profile

if TYPE_CHECKING:
    from mdpipe.data.dataset import EncodedDataset
    from mdpipe.params import EstimatorConfig

EXAMPLES_PER_READ = 1024
"""Examples that n-grams are counted in, and that are read at a time: the largest batch. It does not depend on
`batch_size`, so that the estimate does not either."""


class Examples(Protocol):
    """The data to evaluate: an `EncodedDataset`, or anything with this interface."""

    @property
    def vocab_size(self) -> int:
        """Return the number of tokens, without the mask."""

    @property
    def examples(self) -> int:
        """Return the number of examples in all batches."""

    def evaluation_batches(self, batch_size: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Yield (indices of examples (B,), tokens (B, L)); L may differ between batches."""


@dataclass(frozen=True)
class Bits:
    """A likelihood bound in bits per unit (token, character, byte or dimension), lower is better.

    `stderr`, `stderr_mc` and the parts are as in `Likelihood`.
    """

    value: float
    stderr: float
    stderr_mc: float
    reconstruction: float
    prior: float
    diffusion: float


@dataclass(frozen=True)
class Likelihood:
    """An upper bound on the negative log-likelihood, in nats per token."""

    value: float
    """Sum over the examples divided by their tokens; equals the sum of the three parts."""
    stderr: float
    """Standard error as an estimate of the source's bound, the examples being a sample of it; includes the next one."""
    stderr_mc: float
    """Standard error as an estimate of the bound on exactly these examples: the Monte Carlo error."""
    reconstruction: float
    prior: float
    diffusion: float
    tokens: int
    examples: int
    mc_estimator: EstimatorName
    num_mc_samples: int
    """Samples per example."""
    nfe: int
    """Network calls per example: its samples, and those of the pilot, if there was one."""
    per_example: NDArray[np.float64]
    """Bound on each example, (N,), in nats: for differences between models on the same examples."""
    sizes: NDArray[np.int64]
    """Tokens of each example, (N,)."""

    def bits_per(self, units: int) -> Bits:
        """Return the bound in bits per unit, where the examples contain `units` units, such as characters or bytes.

        The number of units per token is taken as known, so the errors are those per token in another unit.
        """
        factor = self.tokens / (units * math.log(2))
        return Bits(
            value=self.value * factor,
            stderr=self.stderr * factor,
            stderr_mc=self.stderr_mc * factor,
            reconstruction=self.reconstruction * factor,
            prior=self.prior * factor,
            diffusion=self.diffusion * factor,
        )

    def bits_per_token(self) -> Bits:
        """Return the bound in bits per token: per dimension of an image, or character of a character-level text."""
        return self.bits_per(self.tokens)

    def perplexity(self) -> Estimate:
        """Return an upper bound on the perplexity per token; it is comparable for the same tokenizer only."""
        return Estimate(self.value, self.stderr).exponential()


def likelihood_bound(
    objective: Objective,
    network: nn.Module,
    dataset: Examples,
    settings: "EstimatorConfig",
    rng: CounterRNG,
    class_labels: NDArray[np.int64] | None = None,
    clusters: NDArray[np.int64] | None = None,
    profile: Profile | None = None,
) -> Likelihood:
    r"""Estimate the objective's bound over all examples of a data set.

    With c_ehr the cost of example e per token in sample r of stratum h, less control variates, and n_e the tokens:

        value = sum_e n_e mean_hr c_ehr / sum_e n_e
        stderr_mc = sqrt(sum_e n_e^2 (sum_h var_r(c_ehr) / (H^2 R) + covariance_e)) / sum_e n_e

    with the covariance of `adjust_by_curve`, and `stderr` is the ratio estimator's over the clusters of examples.

    With `num_mc_samples: auto`, a pilot with a separate random stream decides how many samples there are, and is not
    used otherwise. The number does not depend on the samples of the estimate, which therefore remains unbiased.

    Args:
        objective: Gives the bound; moved to the network's device.
        network: A denoiser, put into evaluation mode.
        dataset: The examples; all are read, including a shorter last window.
        settings: The estimator, the number of its samples, and `batch_size`, which only changes the last digits.
        rng: Source of the times and masks, a function of sample and example.
        class_labels: (N,) for the denoiser, or None.
        clusters: (N,), the document of each example or another cluster; None if all examples are independent.
        profile: Collects the predictions that the estimate is computed from, and changes nothing.

    Raises:
        ValueError: The data set has another vocabulary than the model, or fewer than two examples.
    """
    if dataset.vocab_size != objective.vocab_size:
        raise ValueError(
            f"the model knows {objective.vocab_size} tokens, but the data have {dataset.vocab_size}; encode them with"
            " the tokenizer of the model's own dataset"
        )
    network.eval()
    objective.to(next(network.parameters()).device)
    estimator = estimator_of(objective, settings.estimator)
    evaluation = _Evaluation(objective, network, dataset, estimator, settings.batch_size, class_labels, clusters)
    num_mc_samples, nfe = plan_mc_samples(evaluation.estimate, settings, rng, is_exact=estimator == "exact")
    return replace(evaluation.estimate(num_mc_samples, rng, profile), nfe=nfe)


def plan_mc_samples(
    estimate: Callable[[int, CounterRNG], Likelihood], settings: "EstimatorConfig", rng: CounterRNG, *, is_exact: bool
) -> tuple[int, int]:
    """Return the samples of an example, and the network calls that they take, those of a pilot included.

    Args:
        estimate: Makes the pilot, from a number of samples and a random stream of its own.
        settings: The number of samples, or `auto` and the half-width to meet.
        rng: Source of the estimate.
        is_exact: True if one sample is enough.
    """
    if is_exact:
        return 1, 1
    if settings.num_mc_samples != "auto":
        return settings.num_mc_samples, settings.num_mc_samples
    pilot = estimate(PILOT_SAMPLES, rng.child("pilot")).bits_per_token()
    num_mc_samples = choose_num_mc_samples(pilot.stderr_mc, settings.half_width, settings.max_mc_samples)
    return num_mc_samples, PILOT_SAMPLES + num_mc_samples


def zero_shot_bound(
    objective: Objective, network: nn.Module, corpus: "EncodedDataset", settings: "EstimatorConfig", rng: CounterRNG
) -> Likelihood:
    """Estimate the bound on a text corpus that the model was not trained on.

    The convention decides the number as much as the model does:

    - The whole corpus is evaluated; it is not split, since nothing of it was trained on.
    - Its text is encoded as it is, with the tokenizer of the model's training data. The protocol, a packing, says which
      separators the documents have, whether their tokens share windows, and whether the tokens that fill no window are
      dropped. Windows do not overlap.
    - Perplexity is exp of the bound in nats per token, where separators are tokens.
    - Bits per byte and per character are the bits of all tokens, separators included, divided by the size of the text
      only. For a lossy tokenizer (text8) the text is the decoded one, separators included.
    - As in all evaluation, the bound is an average over several samples of time and mask, with the averaged weights.

    Raises:
        ValueError: The corpus is not text, has another vocabulary than the model, or fewer than two windows.
    """
    if corpus.modality != "text":
        raise ValueError(f"{corpus.directory} holds {corpus.modality} data; zero-shot corpora are text")
    return likelihood_bound(objective, network, corpus, settings, rng, clusters=corpus.clusters[1])


@dataclass(frozen=True)
class _Evaluation:
    """A data set, the model that is evaluated on it, and the estimator."""

    objective: Objective
    network: nn.Module
    dataset: Examples
    estimator: EstimatorName
    batch_size: int
    class_labels: NDArray[np.int64] | None
    clusters: NDArray[np.int64] | None

    @torch.inference_mode()
    def estimate(self, num_mc_samples: int, rng: CounterRNG, profile: Profile | None = None) -> Likelihood:
        """Return the estimate from a given number of samples."""
        device, model = next(self.network.parameters()).device, cast("Denoiser", self.network)
        if profile is not None:
            model = profile.watch(model, self.objective)
        strata, is_controlled = num_strata(self.estimator, num_mc_samples), self.estimator == "exact_counts"
        sample_masks = exact_counts(self.objective, model) if is_controlled else None
        examples, groups = self.dataset.examples, group_shape(num_mc_samples)
        q_ND, terms_ND = np.zeros((examples, num_mc_samples)), np.zeros((6, examples, num_mc_samples))
        changes_NKMM = np.zeros((2, examples, *groups, groups[1]), dtype=np.float32) if is_controlled else None
        sizes, boundaries = np.zeros(self.dataset.examples, dtype=np.int64), np.zeros(2)
        for indices, block in self.dataset.evaluation_batches(EXAMPLES_PER_READ):
            nll = torch.from_numpy(neighbor_nll(block, self.dataset.vocab_size)) if is_controlled else None
            for start in range(0, len(block), self.batch_size):
                rows = slice(start, start + self.batch_size)
                batch, x0 = indices[rows], torch.from_numpy(block[rows]).to(device)
                sizes[batch] = length = x0.shape[1]
                labels = None if self.class_labels is None else torch.tensor(self.class_labels[batch], device=device)
                examples_B = torch.from_numpy(batch).to(device)
                u_DB = [rng.uniform(index, examples_B, 2 + length) for index in range(num_mc_samples)]
                for index, u in enumerate(u_DB):
                    u[:, 0] = (index % strata + u[:, 0]) / strata
                    q_ND[batch, index] = u[:, 0].cpu().numpy()
                if profile is not None:
                    profile.begin_batch(x0)
                if sample_masks is None or nll is None or changes_NKMM is None:
                    found, boundary = self._sample_bounds(model, x0, u_DB, labels, profile)
                else:
                    found, changes_NKMM[:, batch], boundary = self._sample_counts(
                        sample_masks, x0, u_DB, labels, nll[:, rows].to(device), profile
                    )
                terms_ND[: len(found), batch] = found
                boundaries += [part.mean(axis=1).sum() for part in boundary]
                if profile is not None:
                    per_token: Tensor | float = 0.0
                    if is_controlled:
                        per_token = boundary_terms(self.objective, x0.reshape(-1, 1)).total.view(x0.shape)
                    profile.end_batch(batch, num_mc_samples, per_token)
        costs_ND, *controls_CND, excess_ND = terms_ND
        costs_ND /= sizes[:, None]
        covariance_N = np.zeros(len(sizes))
        if changes_NKMM is not None:
            costs_ND, covariance_N = adjust_by_curve(
                costs_ND,
                np.stack(controls_CND) / sizes[:, None],
                excess_ND,
                changes_NKMM / sizes[:, None, None, None],
                q_ND,
                strata,
            )
        return self._summarize(costs_ND.reshape(len(sizes), -1, strata), covariance_N, sizes, boundaries)

    def _sample_bounds(
        self, model: Denoiser, x0: Tensor, uniforms: list[Tensor], labels: Tensor | None, profile: Profile | None
    ) -> tuple[Array, Array]:
        """Return samples of the objective's bound, (1, B, D), and their reconstruction and prior, (2, B, D)."""
        elbos = []
        for u in uniforms:
            elbos.append(self.objective.checked_elbo(model, x0, u[:, 0], u[:, 2:], labels))
            if profile is not None:
                profile.add_sample(torch.ones_like(u[:, 0]), profile.split(elbos[-1]))
        parts = torch.stack([torch.stack([one.total, one.reconstruction, one.prior]) for one in elbos], dim=2)
        terms = parts.double().cpu().numpy()
        return terms[:1], terms[1:]

    def _sample_counts(
        self,
        sample_masks: MaskSampler,
        x0: Tensor,
        uniforms: list[Tensor],
        labels: Tensor | None,
        nll: Tensor,
        profile: Profile | None,
    ) -> tuple[Array, Array, Array]:
        """Return samples of exact counts, (6, B, D), changes of the controls, and reconstruction and prior, (2, B, 1).

        The first row has the bound, the others and the changes are those of `diffusion_and_controls`.
        """
        samples = []
        for u in uniforms:
            v, slope = map(torch.from_numpy, mask_fraction(u[:, 0].cpu().numpy()))
            u[:, 0] = v
            samples.append(sample_masks(x0, u, labels))
            if profile is not None:
                profile.add_sample(slope.to(x0.device), samples[-1].weight * samples[-1].loss)
        terms_CDB, changes = diffusion_and_controls(samples, nll)
        terms = terms_CDB.transpose(1, 2).cpu().numpy()
        ends = boundary_terms(self.objective, x0)
        boundary = torch.stack([ends.reconstruction, ends.prior])[:, :, None].cpu().numpy()
        terms[0] += boundary.sum(axis=0)
        return terms, changes.cpu().numpy(), boundary

    def _summarize(self, costs: Array, covariance: Array, sizes: NDArray[np.int64], boundaries: Array) -> Likelihood:
        """Return the estimate.

        Args:
            costs: Costs per token, (N, R, H).
            covariance: Variance of the mean that the covariances of samples add, (N,).
            sizes: Tokens of each example, (N,).
            boundaries: Sums of reconstruction and prior, (2,).
        """
        _, repeats, strata = costs.shape
        per_example = sizes * costs.mean(axis=(1, 2))
        variances = costs.var(axis=1, ddof=1).mean(axis=1) / (strata * repeats) if repeats > 1 else np.zeros(len(sizes))
        variance_mc = (np.square(sizes) * (variances + covariance)).sum()
        over_examples, num_tokens = ratio_estimate(per_example, sizes, self.clusters), int(sizes.sum())
        reconstruction, prior = (boundaries / num_tokens).tolist()
        return Likelihood(
            value=over_examples.value,
            stderr=over_examples.stderr,
            stderr_mc=math.sqrt(max(variance_mc, 0)) / num_tokens,
            reconstruction=reconstruction,
            prior=prior,
            diffusion=over_examples.value - reconstruction - prior,
            tokens=num_tokens,
            examples=len(sizes),
            mc_estimator=self.estimator,
            num_mc_samples=strata * repeats,
            nfe=strata * repeats,
            per_example=per_example,
            sizes=sizes,
        )
