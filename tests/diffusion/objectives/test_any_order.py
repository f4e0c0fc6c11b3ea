"""Objectives with exactly k masks: the any-order bound and MaskGIT's loss."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mdpipe.diffusion.objectives.baselines import AnyOrder, MaskGIT
from mdpipe.diffusion.objectives.md4 import MD4, mask_exactly_k
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.diffusion.schedules.base import Cosine, Linear
from mdpipe.params.diffusion import AnyOrderConfig, CosineConfig, LinearConfig, MaskGITConfig, MD4Config
from tests.diffusion.objectives.enumeration import average_entropies, expectation
from tests.diffusion.statistical_tests import FALSE_ALARM, chi_square_chance
from tests.diffusion.tables import random_table

V, L = 3, 3
X = torch.tensor([2, 0, 1])
ORDERS = torch.tensor(list(itertools.permutations(range(L)))).double() / L


@given(seed=st.integers(0, 1000))
def test_any_order_bound_is_sum_of_average_entropies_and_md4(seed):
    denoiser = random_table(V, L, seed)
    bound = expectation(AnyOrder(AnyOrderConfig(), V), denoiser, X).item()
    assert bound == pytest.approx(average_entropies(denoiser, X).sum().item(), rel=1e-12)
    assert bound == pytest.approx(
        expectation(MD4(MD4Config(schedule=LinearConfig(epsilon=0.0)), V), denoiser, X).item(), rel=1e-10
    )


@pytest.mark.parametrize("time", [0.0, 0.2, 1 / 3, 0.5, 0.7, 1 - 2.0**-53])
def test_time_decides_the_mask_count_and_reaches_the_denoiser(time):
    """N = 1, 2, 3 on thirds of [0, 1): each as likely."""
    seen = []
    denoiser = random_table(V, L, 0)
    denoiser.register_forward_pre_hook(lambda _, arguments: seen.append(arguments))
    AnyOrder(AnyOrderConfig(), V).elbo(
        denoiser, X.expand(len(ORDERS), -1), torch.full((len(ORDERS),), time).double(), ORDERS
    )
    ((x_t, t, _),) = seen
    count = min(math.floor(3 * time) + 1, 3)
    assert ((x_t == V).sum(dim=1) == count).all()
    assert torch.allclose(t, torch.full_like(t, count / 3))


@given(
    time=st.floats(0, 1, exclude_max=True),
    schedule=st.sampled_from([Linear(LinearConfig(epsilon=0.0)), Linear(), Cosine()]),
)
def test_maskgits_loss_is_the_entropy_of_a_fixed_fraction(time, schedule):
    """L D[n] with n = ceil((1 - alpha) L), one at least, over all sets of n."""
    denoiser, t = random_table(V, L, 0), torch.tensor(time).double()
    loss = MaskGIT(MaskGITConfig(schedule=schedule.config), V).loss(
        denoiser, X.expand(len(ORDERS), -1), t.expand(len(ORDERS)), ORDERS
    )
    count = max(math.ceil(schedule.one_minus_alpha(t).item() * L), 1)
    assert loss.mean().item() == pytest.approx(L * average_entropies(denoiser, X)[count - 1].item(), rel=1e-12)


def test_maskgit_is_evaluated_by_md4():
    denoiser = random_table(V, L, 0)
    expected = expectation(MD4(MD4Config(schedule=CosineConfig()), V), denoiser, X)
    assert torch.equal(expectation(MaskGIT(MaskGITConfig(schedule=CosineConfig()), V), denoiser, X), expected)


def test_all_sets_of_a_size_are_as_likely():
    """Chi-square of 20,000 sets of 2 out of 4 positions."""
    u = CounterRNG(0, "test").uniform(0, torch.arange(20_000), 4)
    masked = mask_exactly_k(torch.full((20_000,), 2), u)
    assert (masked.sum(dim=1) == 2).all()
    counts = torch.bincount((masked * torch.tensor([8, 4, 2, 1])).sum(dim=1), minlength=16)
    assert counts.count_nonzero() == 6
    assert chi_square_chance(counts[counts > 0], torch.full((6,), 20_000 / 6)) > FALSE_ALARM
