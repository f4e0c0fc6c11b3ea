"""The conditional bound by enumeration of counts, sets and times, and its Monte Carlo estimate."""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mdpipe.diffusion.objectives.base import ELBO, Objective
from mdpipe.diffusion.objectives.baselines import Autoregressive
from mdpipe.diffusion.objectives.genmd4 import GenMD4
from mdpipe.diffusion.objectives.md4 import MD4
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.diffusion.schedules.base import Linear, Schedule
from mdpipe.evaluation.conditional import conditional_bound, conditional_cost, is_greedy
from mdpipe.evaluation.enumerated import all_masks, exact_denoiser
from mdpipe.params.diffusion import AutoregressiveConfig, MD4Config
from tests.diffusion.all_kinds import every_objective, every_schedule
from tests.diffusion.objectives.enumeration import LAST, Draws, crossed, every_draw, every_time, middles, unmasked_probs
from tests.diffusion.statistical_tests import FALSE_ALARM_Z, normal_quantiles_of_variance
from tests.diffusion.tables import SOURCES, Causal, random_table, random_timed
from tests.evaluation.conftest import Fixed

V, L = 3, 3
TIMES = 16
"""Quantiles of the time given the number of masks."""
REPEATS = 100
NAMES = list(every_objective(V, Linear()))
MASKED = [name for name in NAMES if "genmd4" not in name and name != "autoregressive"]
every_name = pytest.mark.parametrize("name", NAMES)


def objective_of(name: str, vocab_size: int = V, schedule: Schedule | None = None) -> Objective:
    """Return an objective, GenMD4 with exponents that differ."""
    objective = every_objective(vocab_size, schedule or Linear())[name].double()
    if isinstance(objective, GenMD4):
        objective.schedule.raw.data = torch.linspace(1.5, 3, vocab_size, dtype=torch.float64)
    return objective


def every_target(objective: Objective, length: int) -> Iterator[Tensor]:
    """Yield all sets of targets, or, from left to right, all ends of the sequence."""
    for targets in all_masks(length)[1:]:
        if not objective.is_causal or (targets.diff().sum() <= 1 and targets[-1]):
            yield targets


def genmd4_draws(objective: GenMD4, tokens: Tensor, targets: Tensor) -> Draws:
    """Return all times and all sets of masked targets but the empty one; `u` (R, 1 + L) begins with the first's."""
    time, weights = every_time(objective)
    sets = all_masks(len(tokens))[1:]
    sets = sets[~(sets & ~targets).any(dim=1)]
    m = (1 - unmasked_probs(objective, time, tokens)) * targets
    any_up_to = functional.pad(1 - (1 - m).cumprod(dim=1), (1, 0))
    middles = ((any_up_to[:, 1:] + any_up_to[:, :-1]) / 2 / any_up_to[:, -1:])[:, sets.int().argmax(dim=1)]
    chance = torch.where(sets, m[:, None], 1 - m[:, None]).prod(dim=2) / any_up_to[:, -1:]
    u = torch.cat([middles[..., None], (sets * LAST).expand(len(time), -1, -1)], dim=2).flatten(0, 1)
    return Draws(time.repeat_interleave(len(sets)), u, (weights[:, None] * chance).flatten())


@torch.no_grad()
def expected_costs(objective: Objective, network: Any, sequences: Tensor, targets: Tensor, times: int = 1) -> Tensor:
    """Return the mean of the draws of sequences (S, L) over all counts, sets of masks, and quantiles of time, (S,)."""
    size, length = sequences.shape
    if isinstance(objective, GenMD4):  # The probabilities of its masks depend on the tokens, and it has its own times.
        times, draws = 1, [genmd4_draws(objective, tokens, targets) for tokens in sequences]
    elif objective.is_exact:
        draws = size * [Draws(torch.zeros(1).double(), torch.zeros(1, 1 + length).double(), torch.ones(1).double())]
    else:
        orders = torch.tensor(list(itertools.permutations(range(length)))).double() / length
        chances = torch.full((int(targets.sum()), times * len(orders)), 1 / (times * len(orders)), dtype=torch.float64)
        quantiles = ((torch.arange(times).double() + 0.5) / times).repeat_interleave(len(orders))
        u = torch.cat([quantiles[:, None], orders.repeat(times, 1)], dim=1)
        draws = size * [crossed(*middles(int(targets.sum())), u, chances)]
    u = torch.cat([torch.cat([one.time[:, None], one.u], dim=1) for one in draws])
    x0 = sequences.repeat_interleave(len(draws[0].time), dim=0)
    nll = torch.linspace(0.1, 2, objective.vocab_size, dtype=torch.float64)
    costs = conditional_cost(objective, network, nll)(x0, targets.expand(len(x0), -1), u)
    return (torch.stack([one.chance for one in draws]) * costs.view(size, -1)).sum(dim=1)


def conditional_probability(joint: Tensor, tokens: Tensor, targets: Tensor) -> float:
    """Return p(x_T | x_C)."""
    known = [slice(None) if is_target else token for token, is_target in zip(tokens, targets, strict=True)]
    return (joint[tuple(tokens)] / joint[tuple(known)].sum()).item()


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("name", [*MASKED, "autoregressive"])
def test_exact_conditionals_cost_minus_log_p_of_targets(name: str, source: str) -> None:
    """Of each sequence, under every schedule, whatever its ends: so the chain rule holds with equality too."""
    joint = SOURCES[source]
    sequences = joint.nonzero()
    for schedule in every_schedule(epsilon=0.1) if name == "md4" else [Linear()]:
        objective = objective_of(name, len(joint), schedule)
        network = exact_denoiser(objective, joint)
        for targets in every_target(objective, joint.dim()):
            expected = [-math.log(conditional_probability(joint, tokens, targets)) for tokens in sequences]
            assert expected_costs(objective, network, sequences, targets).tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("source", ["copied bit", "even parity", "independent tokens"])
@pytest.mark.parametrize("name", ["genmd4", "genmd4 in steps"])
def test_genmd4_meets_the_conditional_entropy(name: str, source: str) -> None:
    """In continuous time, up to its boundary terms; in steps it is above it."""
    joint = SOURCES[source]
    sequences, probabilities = joint.nonzero(), joint[joint > 0]
    objective = objective_of(name, len(joint))
    assert isinstance(objective, GenMD4)
    network = exact_denoiser(objective, joint)
    for targets in all_masks(joint.dim())[1:]:
        chances = torch.tensor([conditional_probability(joint, tokens, targets) for tokens in sequences])
        ends = objective.add_boundary_terms(torch.zeros(len(sequences)).double(), sequences[:, targets]).total
        bound = probabilities @ expected_costs(objective, network, sequences, targets)
        entropy = -probabilities @ chances.double().log()
        assert bound > entropy - 1e-6
        if name == "genmd4":
            assert bound < entropy + probabilities @ ends + 1e-6


@pytest.mark.parametrize("name", ["genmd4", "genmd4 in steps"])
@torch.no_grad()
def test_genmd4_has_the_mean_of_its_elbo_and_less_variance(name: str) -> None:
    """Against independent masks of the targets, none of which may be masked, enumerated without control variates."""
    objective, network = objective_of(name), random_timed(V, L, 0)
    assert isinstance(objective, GenMD4)
    cost = conditional_cost(objective, network, torch.zeros(V).double())
    for targets in all_masks(L)[1:]:
        tokens = torch.tensor([0, 2, 1])
        independent, given_any = every_draw(objective, tokens), genmd4_draws(objective, tokens, targets)
        rows = tokens.expand(len(independent.time), -1)
        u = independent.u.masked_fill(~targets, -1)
        former = objective.elbo(network, rows, independent.time, u).diffusion
        rows = tokens.expand(len(given_any.time), -1)
        u = torch.cat([given_any.time[:, None], given_any.u], dim=1)
        ends = objective.add_boundary_terms(torch.zeros(1).double(), tokens[None, targets]).total
        costs = cost(rows, targets.expand(len(rows), -1), u) - ends
        mean = (former @ independent.chance).item()
        assert (costs @ given_any.chance).item() == pytest.approx(mean, rel=1e-9)
        variances = (costs - mean).square() @ given_any.chance, (former - mean).square() @ independent.chance
        assert variances[0] < (0.75 if name == "genmd4" else 0.99) * variances[1]


@every_name
def test_it_is_a_bound_for_any_denoiser(name: str) -> None:
    """Kraft's inequality: the sum of exp(-bound) over the targets is at most 1 in each context, 1 for a likelihood."""
    objective = objective_of(name)
    network = Causal(random_table(V, L, 0).table.detach()) if objective.is_causal else random_timed(V, L, 0)
    for targets in every_target(objective, L):
        sequences = torch.ones([V] * L).nonzero()
        costs = expected_costs(objective, network, sequences, targets, TIMES)
        contexts = (sequences * ~targets * V ** torch.arange(L)).sum(dim=1)
        sums = torch.zeros(V**L).double().index_add(0, contexts, (-costs).exp())
        assert sums.max() < 1 + 1e-9
        if objective.is_exact:
            assert sums[sums > 0].min() == pytest.approx(1)


def random_requests(objective: Objective, count: int) -> tuple[list[Any], list[Any]]:
    random, possible = np.random.default_rng(0), list(every_target(objective, L))
    tokens = list(random.choice(V, size=(count, L), p=(0.6, 0.3, 0.1)))
    return tokens, [possible[index].numpy() for index in random.integers(len(possible), size=count)]


@pytest.mark.parametrize("name", ["md4", "md4 in steps", "genmd4", "genmd4 in steps", "sedd", "any_order"])
def test_it_is_unbiased_and_its_stated_error_is_right(name: str) -> None:
    """z-scores of the sum over requests against the enumerated one; false alarms 2e-4."""
    objective, network = objective_of(name), random_timed(V, L, 0)
    tokens, targets = random_requests(objective, 60)
    expected = 0.0
    for targets_L in every_target(objective, L):
        rows = [row for row, is_target in zip(tokens, targets, strict=True) if np.array_equal(is_target, targets_L)]
        costs = expected_costs(objective, network, torch.from_numpy(np.array(rows)), targets_L, 512)
        expected += costs.sum().item()
    scores = []
    for seed in range(REPEATS):
        bounds = conditional_bound(
            objective, network, tokens, targets, np.array([0.5, 1.2, 2.3]), 8, 512, CounterRNG(seed, "score")
        )
        error = math.sqrt(sum(bound.stderr**2 for bound in bounds))
        scores.append((sum(bound.value for bound in bounds) - expected) / error)
    assert abs(np.mean(scores)) < FALSE_ALARM_Z * np.std(scores) / math.sqrt(REPEATS)
    low, high = normal_quantiles_of_variance(REPEATS)
    assert low < np.mean(np.square(scores)) < high


@every_name
def test_a_request_depends_on_no_other_and_on_no_batch(name: str) -> None:
    """Of several lengths, up to the last digits."""
    objective, network, random = objective_of(name), Fixed().double(), np.random.default_rng(0)
    lengths = [5, 3, 1, 5, 4, 3]
    tokens = [random.integers(V, size=length) for length in lengths]
    targets = [np.arange(length) >= length - min(2, length) for length in lengths]

    def bounds(count: int, batch_size: int) -> list[tuple[float, float]]:
        found = conditional_bound(
            objective, network, tokens[:count], targets[:count], np.ones(V), 8, batch_size, CounterRNG(0, "score")
        )
        return [(bound.value, bound.stderr) for bound in found]

    for others in (bounds(6, 1), bounds(6, 7), bounds(3, 64)):
        np.testing.assert_allclose(others, bounds(6, 64)[: len(others)], rtol=1e-9, atol=1e-9)
    errors = [error for _, error in bounds(6, 64)]
    assert (max(errors) == 0) == objective.is_exact


@pytest.mark.parametrize("name", ["md4", "any_order", "autoregressive"])
def test_one_continuation_of_each_context_is_greedy(name: str) -> None:
    objective, length = objective_of(name), 4
    table = random_table(V, length, 0)
    network = Causal(table.table.detach()) if objective.is_causal else table
    targets = np.array([False, False, True, True])
    for context in itertools.product(range(V), repeat=2):
        greedy = [
            rest
            for rest in itertools.product(range(V), repeat=2)
            if is_greedy(objective, network, np.array([*context, *rest]), targets)
        ]
        assert len(greedy) == 1
        hidden = torch.tensor([[*context, V, V]])
        if objective.is_causal:
            hidden = torch.tensor([[V, *context, greedy[0][0]]])
        logits = network.head(network(hidden, torch.zeros(1), None))[0, 2:].softmax(dim=1)
        surest = 0 if objective.is_causal else int(logits.max(dim=1).values.argmax())
        assert greedy[0][surest] == logits[surest].argmax()


def test_what_has_no_conditional_bound_is_refused() -> None:
    class Doubled(MD4):
        def elbo(self, *arguments: Any, **options: Any) -> ELBO:
            elbo = super().elbo(*arguments, **options)
            return ELBO(elbo.reconstruction, elbo.prior, 2 * elbo.diffusion)

    def bound(objective: Objective, *targets: bool, num_mc_samples: int = 2) -> None:
        tokens, rng = [np.zeros(len(targets), dtype=np.int64)], CounterRNG(0, "score")
        conditional_bound(objective, Fixed(), tokens, [np.array(targets)], np.ones(V), num_mc_samples, 1, rng)

    with pytest.raises(ValueError, match="'md4' has a bound of a form that is not known"):
        bound(Doubled(MD4Config(), V), True)
    with pytest.raises(ValueError, match="a request has no targets"):
        bound(MD4(MD4Config(), V), False, False)
    with pytest.raises(ValueError, match="the likelihood of the last tokens of a sequence only"):
        bound(Autoregressive(AutoregressiveConfig(), V), False, True, False)
    for odd in (0, 1, 5):
        with pytest.raises(ValueError, match=f"num_mc_samples must be even, .*; it is {odd}"):
            bound(MD4(MD4Config(), V), True, num_mc_samples=odd)
