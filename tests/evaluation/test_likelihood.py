"""The estimator against the enumerated bound.

The repeats below differ in nothing but their seed, so each test always ends the same way; the false-alarm rate is the
probability, over seeds, that a right implementation would fail.
"""

import copy
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mdpipe.diffusion.objectives.base import ELBO
from mdpipe.diffusion.objectives.md4 import MD4
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.diffusion.schedules.base import Cosine, Linear, Schedule
from mdpipe.evaluation.likelihood import Likelihood, likelihood_bound
from mdpipe.params import EstimatorConfig
from mdpipe.params.diffusion import CosineConfig, LinearConfig, MD4Config
from tests.diffusion.statistical_tests import FALSE_ALARM_Z, normal_quantiles_of_variance

EPSILON = 0.05
"""Larger than in training: windows of three tokens with small epsilon have rare samples of huge weight, whose errors
are far from normal."""
LENGTH, VOCAB_SIZE = 3, 3
REPEATS = 200


def enumerated(network: nn.Module, tokens: tuple[int, ...]) -> float:
    r"""The bound of one window in nats, all masks S taken one by one.

    A mask of n out of L positions weighs int p^(n-1) (1 - p)^(L-n) dp over the mask probability p from epsilon to
    1 - epsilon, whatever the schedule.
    """
    length = len(tokens)
    nodes, weights = np.polynomial.legendre.leggauss(length + 1)
    mask_probs, weights = 0.5 + nodes * (0.5 - EPSILON), weights * (0.5 - EPSILON)
    total = 2 * EPSILON * length * math.log(VOCAB_SIZE)
    for size in range(1, length + 1):
        integral = float((weights * mask_probs ** (size - 1) * (1 - mask_probs) ** (length - size)).sum())
        for mask in itertools.combinations(range(length), size):
            x_t = torch.tensor([[VOCAB_SIZE if n in mask else token for n, token in enumerate(tokens)]])
            with torch.inference_mode():
                log_mu = network.head(network(x_t, torch.zeros(1), None)).log_softmax(dim=-1)[0]
            total -= integral * sum(log_mu[n, tokens[n]].item() for n in mask)
    return total


def table(network: nn.Module, length: int) -> dict[tuple[int, ...], float]:
    return {tokens: enumerated(network, tokens) for tokens in itertools.product(range(VOCAB_SIZE), repeat=length)}


@pytest.fixture(scope="module")
def exact(network: nn.Module) -> dict[int, dict[tuple[int, ...], float]]:
    """The enumerated bound in nats of every window of a length."""
    return {length: table(network, length) for length in (2, LENGTH)}


def random_windows(count: int, seed: int) -> NDArray[np.int64]:
    """Return windows of independent, unevenly distributed tokens."""
    return np.random.default_rng(seed).choice(VOCAB_SIZE, size=(count, LENGTH), p=PROBABILITIES)


PROBABILITIES = (0.6, 0.3, 0.1)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", [Linear(LinearConfig(epsilon=EPSILON)), Cosine(CosineConfig(epsilon=EPSILON))])
def test_it_is_unbiased_and_knows_its_monte_carlo_error(
    network: nn.Module, exact: dict[int, Any], windows: Any, schedule: Schedule
) -> None:
    """z-scores against the enumerated bound of the very same windows, the short one included; false alarms 2e-4."""
    whole, tail = random_windows(120, seed=1), np.array([2, 0])
    nats = sum(exact[LENGTH][tuple(row)] for row in whole.tolist()) + exact[2][tuple(tail.tolist())]
    expected = nats / (whole.size + tail.size)
    scores = []
    for seed in range(REPEATS):
        estimate = likelihood_bound(
            MD4(MD4Config(schedule=schedule.config), VOCAB_SIZE),
            network,
            windows(whole, tail),
            EstimatorConfig(num_mc_samples=8, batch_size=200),
            CounterRNG(seed, "evaluate"),
        )
        scores.append((estimate.value - expected) / estimate.stderr_mc)
        assert estimate.stderr > estimate.stderr_mc
    assert abs(np.mean(scores)) < FALSE_ALARM_Z * np.std(scores) / math.sqrt(REPEATS)
    low, high = normal_quantiles_of_variance(REPEATS)
    assert low < np.mean(np.square(scores)) < high


def test_its_standard_error_is_that_of_the_source(network: nn.Module, exact: dict[int, Any], windows: Any) -> None:
    """z-scores against the expectation over all windows of the source, fresh windows each time; false alarms 2e-4."""
    expected = sum(math.prod(PROBABILITIES[token] for token in tokens) * nats for tokens, nats in exact[LENGTH].items())
    scores = []
    for seed in range(REPEATS):
        examples = windows(random_windows(120, seed=100 + seed))
        estimate = likelihood_bound(
            MD4(MD4Config(schedule=LinearConfig(epsilon=EPSILON)), VOCAB_SIZE),
            network,
            examples,
            EstimatorConfig(num_mc_samples=2, batch_size=200),
            CounterRNG(seed, "evaluate"),
        )
        scores.append((estimate.value - expected / LENGTH) / estimate.stderr)
    assert abs(np.mean(scores)) < FALSE_ALARM_Z * np.std(scores) / math.sqrt(REPEATS)
    low, high = normal_quantiles_of_variance(REPEATS)
    assert low < np.mean(np.square(scores)) < high


def test_each_replicate_has_one_time_in_each_part(network: nn.Module, windows: Any) -> None:
    """For every example its own times, and none of them in both replicates."""
    times = []
    spy = copy.deepcopy(network)
    spy.register_forward_pre_hook(lambda _, arguments: times.append(arguments[1]))
    settings = EstimatorConfig(estimator="stratified_times", num_mc_samples=8, batch_size=50)
    bound(spy, windows(random_windows(50, seed=0)), settings)
    times_RS50 = torch.stack(times).reshape(2, 4, 50)
    assert torch.equal((times_RS50 * 4).floor(), torch.arange(4.0, dtype=torch.float64)[None, :, None].expand(2, 4, 50))
    assert len(times_RS50.flatten().unique()) == 8 * 50


class CostOfTime(MD4):
    """An objective whose every example costs t nats."""

    def elbo(self, model: object, x0: Tensor, t: Tensor, u: Tensor, class_labels: Tensor | None = None) -> ELBO:
        return ELBO(torch.zeros_like(t), torch.zeros_like(t), t)


def test_the_error_from_times_falls_with_their_number_cubed(network: nn.Module, windows: Any) -> None:
    """The mean of S jittered times has the variance 1 / (12 S^3); 10 % is six standard errors of its estimate here."""
    examples = windows(random_windows(2000, seed=0))
    for number in (2, 8, 32):
        settings = EstimatorConfig(num_mc_samples=number, batch_size=2000)
        objective = CostOfTime(MD4Config(), VOCAB_SIZE)
        estimate = likelihood_bound(objective, network, examples, settings, CounterRNG(0, "evaluate"))
        variance = 2000 * (1 / 12 / (number / 2) ** 3) / 2
        assert estimate.stderr_mc * estimate.tokens == pytest.approx(math.sqrt(variance), rel=0.1)
        assert abs(estimate.value - 1 / 2 / LENGTH) < FALSE_ALARM_Z * estimate.stderr_mc


def bound(network: nn.Module, examples: Any, settings: EstimatorConfig, epsilon: float = EPSILON) -> Likelihood:
    return likelihood_bound(
        MD4(MD4Config(schedule=LinearConfig(epsilon=epsilon)), VOCAB_SIZE),
        network,
        examples,
        settings,
        CounterRNG(0, "evaluate"),
    )


def test_every_token_is_counted_once_in_whatever_batches(network: nn.Module, windows: Any) -> None:
    examples = windows(random_windows(23, seed=0), tail=np.array([1]))
    estimates = [
        bound(network, examples, EstimatorConfig(num_mc_samples=4, batch_size=size)) for size in (1, 7, 23, 100)
    ]
    for estimate in estimates:
        assert (estimate.tokens, estimate.examples, estimate.num_mc_samples) == (70, 24, 4)
        assert estimate.value == pytest.approx(estimates[0].value, rel=1e-6)
        assert estimate.stderr == pytest.approx(estimates[0].stderr, rel=1e-6)
        assert estimate.stderr_mc == pytest.approx(estimates[0].stderr_mc, rel=1e-6)


@dataclass(frozen=True)
class Reordered:
    """Examples (N, L) that keep their indices, and so their random streams, but are read in another order."""

    tokens: NDArray[np.int64]
    order: NDArray[np.int64]
    vocab_size: int = VOCAB_SIZE

    @property
    def examples(self) -> int:
        return len(self.tokens)

    def evaluation_batches(self, batch_size: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        for first in range(0, len(self.order), batch_size):
            indices = self.order[first : first + batch_size]
            yield indices, self.tokens[indices]


@pytest.mark.parametrize("estimator", ["exact_counts", "stratified_times", "independent_times"])
def test_the_order_of_reading_changes_the_last_digits_only(network: nn.Module, estimator: Any) -> None:
    """Within a block of EXAMPLES_PER_READ examples, whose n-grams are counted together."""
    tokens, random = random_windows(60, seed=0), np.random.default_rng(0)
    settings = EstimatorConfig(estimator=estimator, num_mc_samples=4, batch_size=16)
    found, expected = (
        bound(network, Reordered(tokens, order), settings) for order in (random.permutation(60), np.arange(60))
    )
    np.testing.assert_allclose(found.per_example, expected.per_example, rtol=1e-6)
    assert (found.value, found.stderr, found.stderr_mc) == pytest.approx(
        (expected.value, expected.stderr, expected.stderr_mc), rel=1e-5
    )


def test_renumbered_examples_have_the_same_bound_within_its_error(network: nn.Module) -> None:
    """With other random streams and folds: z-scores of differences by `stderr_mc` over permutations; false alarms 2e-4.

    The error over clusters follows the examples.
    """
    tokens, random, scores, errors = random_windows(60, seed=0), np.random.default_rng(0), [], []
    documents, settings = np.arange(60) // 4, EstimatorConfig(num_mc_samples=4)
    objective = MD4(MD4Config(schedule=LinearConfig(epsilon=EPSILON)), VOCAB_SIZE)
    for seed in range(100):
        pair = [
            likelihood_bound(
                objective,
                network,
                Reordered(tokens[order], np.arange(60)),
                settings,
                CounterRNG(seed, stream),
                clusters=documents[order],
            )
            for stream, order in (("first", np.arange(60)), ("second", random.permutation(60)))
        ]
        scores.append((pair[1].value - pair[0].value) / math.hypot(pair[0].stderr_mc, pair[1].stderr_mc))
        errors.append([one.stderr for one in pair])
    low, high = normal_quantiles_of_variance(100)
    assert low < np.mean(np.square(scores)) < high
    means = np.mean(errors, axis=0)
    assert means[1] == pytest.approx(means[0], rel=0.05)


def test_the_parts_add_up(network: nn.Module, windows: Any) -> None:
    estimate = bound(
        network,
        windows(random_windows(23, seed=0), tail=np.array([1])),
        EstimatorConfig(num_mc_samples=4, batch_size=8),
    )
    assert estimate.reconstruction == pytest.approx(EPSILON * math.log(VOCAB_SIZE))
    assert estimate.prior == pytest.approx(EPSILON * math.log(VOCAB_SIZE))
    assert estimate.value == pytest.approx(estimate.reconstruction + estimate.prior + estimate.diffusion)


def test_a_network_that_knows_nothing_needs_log2_v_bits_a_token(network: nn.Module, windows: Any) -> None:
    """An output layer of zeros, as at the start of training: all samples cost the same."""
    network = copy.deepcopy(network)
    network.output.data.zero_()
    estimate = bound(
        network, windows(random_windows(300, seed=0)), EstimatorConfig(num_mc_samples=16, batch_size=300)
    ).bits_per_token()
    assert estimate.value == pytest.approx(math.log2(VOCAB_SIZE), rel=1e-6)
    assert estimate.stderr_mc < 1e-6


def test_units_are_those_of_the_whole_split() -> None:
    nats = Likelihood(
        value=math.log(8),
        stderr=0.1,
        stderr_mc=0.01,
        reconstruction=0.002,
        prior=0.001,
        diffusion=math.log(8) - 0.003,
        tokens=100,
        examples=10,
        mc_estimator="exact_counts",
        num_mc_samples=2,
        nfe=2,
        per_example=np.full(10, 10 * math.log(8)),
        sizes=np.full(10, 10),
    )
    assert nats.bits_per_token().value == pytest.approx(3)
    bits = nats.bits_per(400)
    assert bits.value == pytest.approx(0.75)
    assert bits.stderr == pytest.approx(0.1 / math.log(2) / 4)
    assert bits.stderr_mc == pytest.approx(bits.stderr / 10)
    assert bits.reconstruction + bits.prior + bits.diffusion == pytest.approx(bits.value)
    perplexity = nats.perplexity()
    assert (perplexity.value, perplexity.stderr) == pytest.approx((8, 0.8))


def test_data_of_another_vocabulary_are_refused(network: nn.Module, windows: Any) -> None:
    with pytest.raises(ValueError, match="the model knows 3 tokens, but the data have 7"):
        bound(
            network, windows(random_windows(4, seed=0), vocab_size=7), EstimatorConfig(num_mc_samples=2, batch_size=2)
        )


def test_a_single_example_has_no_standard_error_and_is_refused(network: nn.Module, windows: Any) -> None:
    with pytest.raises(ValueError, match="needs two examples"):
        bound(network, windows(random_windows(1, seed=0)), EstimatorConfig(num_mc_samples=2, batch_size=2))
