"""The parts of a bound against closed forms, for sources whose conditionals are known.

Examples are drawn from the source, so that the standard errors include their choice; false alarms are below 1e-3 each.
"""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mdpipe.diffusion.denoiser import Denoiser
from mdpipe.diffusion.objectives.base import Objective
from mdpipe.diffusion.objectives.md4 import MD4
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.diffusion.schedules.base import Linear
from mdpipe.evaluation.enumerated import exact_denoiser, independent_tokens, markov_chain
from mdpipe.evaluation.likelihood import Likelihood, likelihood_bound
from mdpipe.evaluation.profile import ALL, PARTS, Profile
from mdpipe.params import EstimatorConfig
from mdpipe.params.diffusion import MD4Config
from tests.diffusion.all_kinds import every_objective
from tests.diffusion.statistical_tests import FALSE_ALARM_Z
from tests.diffusion.tables import random_timed
from tests.evaluation.conftest import Windows

V, L, N = 3, 3, 3000
CHAIN = markov_chain([0.6, 0.3, 0.1], [[0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.5, 0.4, 0.1]], L)
UNEVEN = [[0.5, 0.3, 0.2], [0.9, 0.05, 0.05], [0.2, 0.2, 0.6]]
"""Independent tokens, each position with its own frequencies."""
PRODUCT = torch.einsum("a,b,c->abc", *torch.tensor(UNEVEN, dtype=torch.float64))
EVERY = sorted(every_objective(V, Linear()))
every = pytest.mark.parametrize("name", EVERY)


class Module(nn.Module):
    """A denoiser as a network, with logits that are `sharpness` times its own."""

    def __init__(self, denoiser: Denoiser, sharpness: float = 1) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.sharpness = nn.Parameter(torch.tensor(sharpness, dtype=torch.float64))
        self.calls = 0

    def forward(self, x_t: Tensor, t: Tensor, class_labels: Tensor | None) -> Tensor:
        self.calls += 1
        return self.denoiser(x_t, t, class_labels)

    def head(self, hidden: Tensor) -> Tensor:
        return self.sharpness * self.denoiser.head(hidden)


class Uniform:
    """A denoiser that knows nothing."""

    def __call__(self, x_t: Tensor, t: Tensor, class_labels: Tensor | None) -> Tensor:
        return torch.zeros(*x_t.shape, V, dtype=torch.float64)

    def head(self, hidden: Tensor) -> Tensor:
        return hidden


def draw_sequences(joint: Tensor, count: int, seed: int = 0) -> NDArray[np.int64]:
    """Return sequences (count, L) from a joint distribution."""
    cells = np.random.default_rng(seed).choice(joint.numel(), size=count, p=joint.flatten().numpy())
    return np.stack(np.unravel_index(cells, joint.shape), axis=1)


def profiled(objective: Objective, network: nn.Module, tokens: NDArray[np.int64]) -> tuple[Likelihood, Profile]:
    profile = Profile(len(tokens), tokens.shape[1])
    settings = EstimatorConfig(num_mc_samples=4, batch_size=1000)
    data = Windows(tokens, vocab_size=objective.vocab_size)
    bound = likelihood_bound(objective, network, data, settings, CounterRNG(0, "evaluate"), profile=profile)
    return bound, profile


def conditional_entropy(joint: Tensor, position: int, masked: tuple[int, ...]) -> float:
    """Return H(X_position | tokens that are not masked) in bits."""

    def entropy(of: list[int]) -> float:
        p = torch.einsum(joint, [*range(L)], of)
        return float(-torch.special.xlogy(p, p).sum() / math.log(2))

    known = [axis for axis in range(joint.dim()) if axis not in masked]
    return entropy([*known, position]) - entropy(known)


def of_masks(joint: Tensor) -> dict[int, float]:
    """Return the mean conditional entropy of a masked token by the number of masks, over sets and their positions."""
    return {
        n: float(np.mean([conditional_entropy(joint, i, s) for s in itertools.combinations(range(L), n) for i in s]))
        for n in range(1, L + 1)
    }


@every
@pytest.mark.parametrize("estimator", ["exact_counts", "stratified_times"])
def test_a_profile_changes_no_bit_and_adds_up_to_the_bound(name: str, estimator: str) -> None:
    """With short windows, in two batches, and by as many network calls as without."""
    objective, tokens = every_objective(V, Linear())[name], draw_sequences(CHAIN, 30)
    denoiser = exact_denoiser(objective, CHAIN) if objective.is_causal else random_timed(V, L, 0)
    settings = EstimatorConfig(estimator=estimator, num_mc_samples=4, batch_size=17)  # type: ignore[arg-type]
    tail = None if objective.is_causal else tokens[0]

    def run(profile: Profile | None) -> tuple[Likelihood, int]:
        network, rng = Module(denoiser), CounterRNG(0, "evaluate")
        return likelihood_bound(
            objective, network, Windows(tokens, tail), settings, rng, profile=profile
        ), network.calls

    profile = Profile(30 + (tail is not None), L)
    (plain, calls), (found, profiled_calls) = run(None), run(profile)
    assert (plain.value, plain.stderr, plain.stderr_mc, calls) == (
        *(found.value, found.stderr, found.stderr_mc),
        profiled_calls,
    )
    np.testing.assert_array_equal(plain.per_example, found.per_example)
    rows = list(profile.positions(found.per_example, None))
    assert [(row.first, row.last) for row in rows] == [(1, 1), (2, 2), (3, 3)]
    assert sum(row.bits * row.tokens for row in rows) == pytest.approx(found.per_example.sum() / math.log(2))
    assert sum(row.tokens for row in rows) == found.tokens


@every
def test_the_contribution_of_an_independent_token_is_its_entropy(name: str) -> None:
    """Under the exact conditionals every bound in continuous time is tight for independent tokens."""
    objective = every_objective(V, Linear())[name]
    network = Module(exact_denoiser(objective, PRODUCT))
    bound, profile = profiled(objective, network, draw_sequences(PRODUCT, N))
    for row, frequencies in zip(profile.positions(bound.per_example, None), UNEVEN, strict=True):
        entropy = -sum(p * math.log2(p) for p in frequencies)
        assert row.bits_stderr is not None
        assert row.bits_stderr < 0.1
        assert abs(row.bits - entropy) < FALSE_ALARM_Z * row.bits_stderr + 1e-3


@pytest.mark.parametrize("name", ["md4", "any_order", "autoregressive"])
def test_bits_by_position_are_the_closed_form_of_a_chain(name: str) -> None:
    """Masked: mean over sets of masks, by uniform size. Left to right: the chain rule."""
    objective = every_objective(V, Linear())[name]
    bound, profile = profiled(objective, Module(exact_denoiser(objective, CHAIN)), draw_sequences(CHAIN, N))
    for i, row in enumerate(profile.positions(bound.per_example, None)):
        expected = conditional_entropy(CHAIN, i, tuple(range(i, L)))
        if not objective.is_causal:
            sizes = [list(itertools.combinations(range(L), n)) for n in range(1, L + 1)]
            expected = sum(
                sum(conditional_entropy(CHAIN, i, s) for s in sets if i in s) / len(sets) / n
                for n, sets in enumerate(sizes, start=1)
            )
        assert row.bits_stderr is not None
        assert abs(row.bits - expected) < FALSE_ALARM_Z * row.bits_stderr + 1e-3


@every
def test_bits_by_mask_fraction_are_the_closed_form_of_a_chain(name: str) -> None:
    objective = every_objective(V, Linear())[name]
    _, profile = profiled(objective, Module(exact_denoiser(objective, CHAIN)), draw_sequences(CHAIN, N))
    rows = list(profile.mask_fractions(None))
    expected = of_masks(CHAIN)
    if objective.is_causal:
        expected = {n: conditional_entropy(CHAIN, L - n, tuple(range(L - n, L))) for n in expected}
    assert [row.mask_fraction for row in rows] == pytest.approx([1 / 3, 2 / 3, 1])
    for row, bits in zip(rows, expected.values(), strict=True):
        assert row.bits_stderr is not None
        assert row.bits_stderr < 0.1
        assert abs(row.bits - bits) < FALSE_ALARM_Z * row.bits_stderr


@every
def test_exact_conditionals_are_calibrated(name: str) -> None:
    objective = every_objective(V, Linear())[name]
    _, profile = profiled(objective, Module(exact_denoiser(objective, CHAIN)), draw_sequences(CHAIN, N))
    rows = list(profile.calibration(None))
    assert {row.mask_fraction for row in rows} == {ALL, *PARTS}
    for part in (ALL, *PARTS):
        assert sum(row.weight for row in rows if row.mask_fraction == part) == pytest.approx(1)
    for row in rows:
        assert row.stderr is not None
        assert abs(row.frequency - row.confidence) < FALSE_ALARM_Z * row.stderr + 1e-9
        assert row.calibration_error < 0.02


@pytest.mark.parametrize(("sharpness", "surplus"), [(2, 1), (0.5, -1)])
def test_wrong_confidence_is_measured(sharpness: float, surplus: int) -> None:
    """Independent tokens with P = (0.8, 0.2) and logits times s: the error is the distance of 0.8 from P^s."""
    joint, objective = independent_tokens([0.8, 0.2], L), MD4(MD4Config(), 2)
    network = Module(exact_denoiser(objective, joint), sharpness)
    _, profile = profiled(objective, network, draw_sequences(joint, N))
    confidence = 0.8**sharpness / (0.8**sharpness + 0.2**sharpness)
    for row in profile.calibration(None):
        assert row.confidence == pytest.approx(confidence)
        assert (row.stderr or 0) < 0.02
        assert row.calibration_error == pytest.approx(surplus * (confidence - 0.8), abs=0.02)


def test_long_windows_have_bins_of_positions(windows: Callable[..., Windows]) -> None:
    """300 positions in 128 bins of two or three; a shorter window counts in the bins that it reaches."""
    tokens = np.zeros((20, 300), dtype=np.int64)
    network = Module(Uniform())
    profile = Profile(21, 300)
    settings = EstimatorConfig(num_mc_samples=2, batch_size=20)
    data = windows(tokens, np.zeros(7, dtype=np.int64))
    bound = likelihood_bound(MD4(MD4Config(), V), network, data, settings, CounterRNG(0, "evaluate"), profile=profile)
    rows = list(profile.positions(bound.per_example, None))
    assert [len(rows), rows[0].first, rows[-1].last] == [128, 1, 300]
    assert {row.last - row.first + 1 for row in rows} == {2, 3}
    assert all(row.first == before.last + 1 for before, row in itertools.pairwise(rows))
    assert sum(row.tokens for row in rows) == 20 * 300 + 7
    assert sum(row.tokens for row in rows[:4]) == 20 * rows[3].last + 7
