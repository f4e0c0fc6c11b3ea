"""The score entropy against MD4, path by path."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mdpipe.diffusion.objectives.baselines import SEDD
from mdpipe.diffusion.objectives.md4 import MD4
from mdpipe.diffusion.schedules.base import Linear, Schedule
from mdpipe.params.diffusion import MD4Config, SEDDConfig
from tests.diffusion.all_kinds import every_schedule
from tests.diffusion.objectives.enumeration import LAST, every_draw
from tests.diffusion.tables import Tabular, random_table

V, L = 3, 3
X = torch.tensor([2, 0, 1])
schedules = st.sampled_from(every_schedule())


def both(schedule: Schedule, denoiser: Tabular) -> tuple[Tensor, Tensor]:
    """Score entropy and MD4 at the same draws, all of them: times, masks and their totals, (R,)."""
    draws = every_draw(MD4(MD4Config(schedule=schedule.config), V), X)
    arguments = (denoiser, X.expand(len(draws.time), -1), draws.time, draws.u)
    return SEDD(SEDDConfig(schedule=schedule.config), V).elbo(*arguments).total, MD4(
        MD4Config(schedule=schedule.config), V
    ).elbo(*arguments).total


@given(schedule=schedules, seed=st.integers(0, 1000))
def test_ratios_that_add_up_make_it_md4_path_by_path(schedule: Schedule, seed):
    """Logits with sum exp(l_j) = V, so that s = alpha / (1 - alpha) mu."""
    table = random_table(V, L, seed).table
    score_entropy, md4 = both(schedule, Tabular((table.log_softmax(dim=2) + math.log(V)).detach()))
    assert torch.allclose(score_entropy, md4, rtol=1e-12)


@given(schedule=schedules, seed=st.integers(0, 1000))
def test_ratios_that_do_not_add_up_only_cost_more(schedule: Schedule, seed):
    score_entropy, md4 = both(schedule, random_table(V, L, seed))
    assert (score_entropy >= md4 * (1 - 1e-12)).all()
    assert (score_entropy > md4 * (1 + 1e-6)).any()


@given(schedule=schedules, time=st.floats(0.01, 0.99), seed=st.integers(0, 1000))
def test_it_is_equation_24(schedule: Schedule, time, seed):
    """-alpha' (s summed over j, minus r log s_x, plus r log r - r) / alpha a masked token, r = alpha / (1 - alpha)."""
    denoiser, t = random_table(V, 1, seed), torch.tensor([time]).double()
    ratio = schedule.alpha(t) / schedule.one_minus_alpha(t)
    scores = ratio * denoiser.table[V, 0].exp() / V
    written = scores.sum() - ratio * scores[1].log() + ratio * ratio.log() - ratio
    expected = schedule.weight(t) / ratio * written
    draw = SEDD(SEDDConfig(schedule=schedule.config), V).elbo(
        denoiser, torch.tensor([[1]]), t, torch.full((1, 1), LAST).double()
    )
    assert draw.diffusion.item() == pytest.approx(expected.item(), rel=1e-9)


def test_logits_of_zero_cost_log_v_a_masked_token():
    draw = SEDD(SEDDConfig(), V).elbo(
        Tabular(torch.zeros((V + 1) ** L, L, V).double()),
        X[None],
        torch.tensor([0.5]).double(),
        torch.full((1, L), LAST).double(),
    )
    assert draw.diffusion.item() == pytest.approx(3 * math.log(V) * Linear().weight(torch.tensor(0.5)).item(), rel=1e-6)
