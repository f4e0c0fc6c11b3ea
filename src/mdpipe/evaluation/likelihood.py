"""The likelihood bound of a whole split or corpus, with its standard error.

Each example gets `num_mc_samples` samples of (time, mask), in two independent replicates. A replicate has one time in
each of num_mc_samples / 2 equal intervals of [0, 1], uniform within its interval. The means of both replicates are
unbiased estimates of the example's bound, and their difference gives the Monte Carlo error.

An objective with an exact likelihood is evaluated once for each example, without Monte Carlo error.

Shapes: B examples of a batch, N examples of the data set, S Monte Carlo samples, L length.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mdpipe.diffusion.denoiser import Denoiser
from mdpipe.diffusion.objectives.base import Objective
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.evaluation.estimate import Estimate, ratio_estimate

if TYPE_CHECKING:
    from mdpipe.data.dataset import EncodedDataset
    from mdpipe.params import EstimatorConfig

REPLICATES = 2


class Examples(Protocol):
    """The data to evaluate: an `EncodedDataset`, or anything with this interface."""

    @property
    def vocab_size(self) -> int:
        """Return the number of tokens, without the mask."""

    @property
    def examples(self) -> int:
        """Return the number of examples in all batches."""

    def evaluation_batches(self, batch_size: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Yield batches (B, L), each with the index of its first example; one batch may have another L."""


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
    num_mc_samples: int
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
) -> Likelihood:
    r"""Estimate the objective's bound over all examples of a data set.

    With m_er the mean of replicate r of example e, and n_e its tokens:

        value = sum_e (m_e0 + m_e1) / 2 / sum_e n_e
        stderr_mc = sqrt(sum_e (m_e0 - m_e1)^2 / 4) / sum_e n_e

    and `stderr` is the ratio estimator's over the examples.

    Args:
        objective: gives the bound; moved to the network's device.
        network: a denoiser, put into evaluation mode.
        dataset: the examples; all are read, including a shorter last window.
        settings: `num_mc_samples` (even) and `batch_size`. The batch size only changes the last digits.
        rng: source of the times and masks, a function of sample and example.
        class_labels: (N,) for the denoiser, or None.

    Raises:
        ValueError: if the data set has another vocabulary than the model, or fewer than two examples.
    """
    if dataset.vocab_size != objective.vocab_size:
        raise ValueError(
            f"the model knows {objective.vocab_size} tokens, but the data have {dataset.vocab_size}; encode them with"
            " the tokenizer of the model's own dataset"
        )
    network.eval()
    device = next(network.parameters()).device
    objective.to(device)
    num_samples = 1 if objective.is_exact else settings.num_mc_samples
    means = np.zeros((dataset.examples, REPLICATES))
    sizes = np.zeros(dataset.examples, dtype=np.int64)
    parts = np.zeros(3)
    for first, tokens in dataset.evaluation_batches(settings.batch_size):
        batch = slice(first, first + len(tokens))
        labels = None if class_labels is None else torch.tensor(class_labels[batch], device=device)
        elbos_SB3 = _sample_elbos(
            objective, network, torch.from_numpy(tokens).to(device), first, num_samples, rng, labels
        )
        replicates = elbos_SB3.reshape(min(num_samples, REPLICATES), -1, len(tokens), 3)
        means[batch] = replicates.sum(axis=3).mean(axis=1).T
        sizes[batch] = tokens.shape[1]
        parts += elbos_SB3.mean(axis=0).sum(axis=0)
    num_tokens = int(sizes.sum())
    per_example = means.mean(axis=1)
    over_examples = ratio_estimate(per_example, sizes)
    reconstruction, prior, diffusion = (parts / num_tokens).tolist()
    return Likelihood(
        value=over_examples.value,
        stderr=over_examples.stderr,
        stderr_mc=float(np.sqrt(np.square(means[:, 0] - means[:, 1]).sum() / 4) / num_tokens),
        reconstruction=reconstruction,
        prior=prior,
        diffusion=diffusion,
        tokens=num_tokens,
        examples=dataset.examples,
        num_mc_samples=num_samples,
        per_example=per_example,
        sizes=sizes,
    )


def zero_shot_bound(
    objective: Objective, network: nn.Module, corpus: "EncodedDataset", settings: "EstimatorConfig", rng: CounterRNG
) -> Likelihood:
    """Estimate the bound on a text corpus that the model was not trained on.

    The convention decides the number as much as the model does:

    - The whole corpus is evaluated; it is not split, since nothing of it was trained on.
    - Its text is encoded as it is, with the tokenizer of the model's training data. The protocol, a packing, says which
      separators the documents have and whether the tokens that fill no window are dropped. Windows do not overlap.
    - Perplexity is exp of the bound in nats per token, where separators are tokens.
    - Bits per byte and per character are the bits of all tokens, separators included, divided by the size of the text
      only. For a lossy tokenizer (text8) the text is the decoded one, separators included.
    - As in all evaluation, the bound is an average over several samples of time and mask, with the averaged weights.

    Raises:
        ValueError: if the corpus is not text, has another vocabulary than the model, or fewer than two windows.
    """
    if corpus.modality != "text":
        raise ValueError(f"{corpus.directory} holds {corpus.modality} data; zero-shot corpora are text")
    return likelihood_bound(objective, network, corpus, settings, rng)


@torch.inference_mode()
def _sample_elbos(
    objective: Objective,
    network: nn.Module,
    tokens: Tensor,
    first: int,
    num_samples: int,
    rng: CounterRNG,
    class_labels: Tensor | None,
) -> NDArray[np.float64]:
    """Return all samples for tokens (B, L): (S, B, 3), the parts reconstruction, prior, diffusion in nats per example.

    The first half of the samples is one replicate, the second half the other; a single sample is both.
    """
    examples_B = torch.arange(first, first + len(tokens), device=tokens.device)
    strata = max(1, num_samples // REPLICATES)
    results = []
    for index in range(num_samples):
        u = rng.uniform(index, examples_B, 1 + tokens.shape[1])
        t_B = (index % strata + u[:, 0]) / strata
        elbo = objective.elbo(cast("Denoiser", network), tokens, t_B, u[:, 1:], class_labels)
        results.append(torch.stack([elbo.reconstruction, elbo.prior, elbo.diffusion], dim=-1))
    return torch.stack(results).double().cpu().numpy()
