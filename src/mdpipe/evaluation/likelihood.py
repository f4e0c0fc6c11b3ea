"""The likelihood bound of a whole split, with its standard error.

Each example gets `draws` draws of (time, mask), in two replicates that know nothing of each other. A replicate has one
time in each of draws / 2 equal parts of [0, 1], uniform within its part. Both replicates' means estimate the example's
bound without bias, and their difference says how far they are off.

An objective that gives the likelihood itself is asked once for each example, and its draws have no error.

Letters: B examples of a batch, N examples in all, D draws, L positions.
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
from mdpipe.diffusion.noise import Noise
from mdpipe.diffusion.objectives.base import Objective
from mdpipe.evaluation.estimate import Estimate, ratio_estimate

if TYPE_CHECKING:
    from mdpipe.params.runs import Draws

REPLICATES = 2


class Examples(Protocol):
    """What is evaluated: an `EncodedDataset`, or anything that reads like one."""

    @property
    def vocabulary(self) -> int:
        """Number of tokens there are, the mask left out."""

    @property
    def examples(self) -> int:
        """How many examples all batches hold together."""

    def evaluation_batches(self, batch_size: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Batches (B, L), each with the index of its first example; one batch may have another L."""


@dataclass(frozen=True)
class Bits:
    """A likelihood bound in bits per unit (token, character, byte or dimension), lower is better.

    `stderr`, `stderr_draws` and the parts are as in `Likelihood`.
    """

    value: float
    stderr: float
    stderr_draws: float
    reconstruction: float
    prior: float
    diffusion: float


@dataclass(frozen=True)
class Likelihood:
    """An upper bound on the negative log-likelihood, in nats per token."""

    value: float
    """Sum over the examples divided by their tokens; the sum of the three parts."""
    stderr: float
    """Standard error as an estimate of the source's bound: the examples are a sample of it. Holds the draws' error."""
    stderr_draws: float
    """Standard error as an estimate of the bound of just these examples: the error of the Monte Carlo draws alone."""
    reconstruction: float
    prior: float
    diffusion: float
    tokens: int
    examples: int
    draws: int
    per_example: NDArray[np.float64]
    """What each example costs, (N,), in nats: for the differences between models on the same examples."""
    sizes: NDArray[np.int64]
    """Tokens of each example, (N,)."""

    def bits_per(self, units: int) -> Bits:
        """The same in bits per unit, of which the examples hold `units` in all: their characters or bytes, say.

        The number of units a token is taken as known, so the errors are those per token in another unit.
        """
        factor = self.tokens / (units * math.log(2))
        return Bits(
            value=self.value * factor,
            stderr=self.stderr * factor,
            stderr_draws=self.stderr_draws * factor,
            reconstruction=self.reconstruction * factor,
            prior=self.prior * factor,
            diffusion=self.diffusion * factor,
        )

    def bits_per_token(self) -> Bits:
        """The same in bits per token. A token is a dimension of a picture, and a character in a letter-level text."""
        return self.bits_per(self.tokens)

    def perplexity(self) -> Estimate:
        """An upper bound on the perplexity: exp of the nats per token."""
        return Estimate(self.value, self.stderr).exponential()


def likelihood_bound(
    objective: Objective,
    network: nn.Module,
    dataset: Examples,
    settings: "Draws",
    noise: Noise,
    condition: NDArray[np.int64] | None = None,
) -> Likelihood:
    r"""Estimate the objective's bound over all of a dataset's examples.

    With m_er the mean of replicate r of example e, and n_e its tokens:

        value = sum_e (m_e0 + m_e1) / 2 / sum_e n_e
        stderr_draws = sqrt(sum_e (m_e0 - m_e1)^2 / 4) / sum_e n_e

    and `stderr` is the ratio estimator's over the examples.

    Args:
        objective: gives the bound; moved to the network's device.
        network: a denoiser, put into evaluation mode.
        dataset: the examples; all are read, a shorter last window too.
        settings: `draws` (even) and `batch_size`. The batch size only changes the last digits.
        noise: source of the times and masks, one number each per (draw, example).
        condition: (N,) what the denoiser is told of each example, or None.

    Raises:
        ValueError: the dataset has another vocabulary than the model, or fewer than two examples.
    """
    if dataset.vocabulary != objective.vocabulary:
        raise ValueError(
            f"the model knows {objective.vocabulary} tokens, but the data have {dataset.vocabulary}; encode them with"
            " the tokenizer of the model's own dataset"
        )
    network.eval()
    device = next(network.parameters()).device
    objective.to(device)
    draws = 1 if objective.exact else settings.draws
    means = np.zeros((dataset.examples, REPLICATES))
    sizes = np.zeros(dataset.examples, dtype=np.int64)
    parts = np.zeros(3)
    for first, tokens in dataset.evaluation_batches(settings.batch_size):
        batch = slice(first, first + len(tokens))
        told = None if condition is None else torch.tensor(condition[batch], device=device)
        draws_DB3 = _draw_bounds(objective, network, torch.from_numpy(tokens).to(device), first, draws, noise, told)
        halves = draws_DB3.reshape(min(draws, REPLICATES), -1, len(tokens), 3)
        means[batch] = halves.sum(axis=3).mean(axis=1).T
        sizes[batch] = tokens.shape[1]
        parts += draws_DB3.mean(axis=0).sum(axis=0)
    tokens_in_all = int(sizes.sum())
    per_example = means.mean(axis=1)
    over_examples = ratio_estimate(per_example, sizes)
    reconstruction, prior, diffusion = (parts / tokens_in_all).tolist()
    return Likelihood(
        value=over_examples.value,
        stderr=over_examples.stderr,
        stderr_draws=float(np.sqrt(np.square(means[:, 0] - means[:, 1]).sum() / 4) / tokens_in_all),
        reconstruction=reconstruction,
        prior=prior,
        diffusion=diffusion,
        tokens=tokens_in_all,
        examples=dataset.examples,
        draws=draws,
        per_example=per_example,
        sizes=sizes,
    )


@torch.inference_mode()
def _draw_bounds(
    objective: Objective,
    network: nn.Module,
    tokens: Tensor,
    first: int,
    draws: int,
    noise: Noise,
    condition: Tensor | None,
) -> NDArray[np.float64]:
    """All draws for tokens (B, L): (draws, B, 3), the parts reconstruction, prior, diffusion in nats per example.

    The first half of the draws is one replicate, the second the other; a single draw is both.
    """
    examples_B = torch.arange(first, first + len(tokens), device=tokens.device)
    strata = max(1, draws // REPLICATES)
    count = objective.bound_uniforms(tokens.shape[1])
    results = []
    for draw in range(draws):
        uniforms = noise.uniform(draw, examples_B, 1 + count)
        time_B = (draw % strata + uniforms[:, 0]) / strata
        bound = objective.bound(cast("Denoiser", network), tokens, time_B, uniforms[:, 1:], condition)
        results.append(torch.stack([bound.reconstruction, bound.prior, bound.diffusion], dim=-1))
    return torch.stack(results).double().cpu().numpy()
