"""The likelihood itself against its definition."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mdpipe.diffusion.objectives.baselines import Autoregressive
from mdpipe.params.diffusion import AutoregressiveConfig
from tests.diffusion.objectives.enumeration import expectation
from tests.diffusion.tables import SOURCES, Causal, exact_table, random_table

V, L = 3, 3


def shifted(exact) -> Causal:
    """An exact table's conditionals of each token given those before, where the shifted tokens will look for them."""
    vocab_size, length = exact.vocab_size, exact.length
    table = torch.zeros_like(exact.table.detach())
    places = (vocab_size + 1) ** torch.arange(length - 1, -1, -1)
    for position in range(length):
        for before in itertools.product(range(vocab_size), repeat=position):
            free = [vocab_size] * (length - position)
            seen = torch.tensor([vocab_size, *before, *free[1:]])
            meant = torch.tensor([*before, *free])
            table[(seen * places).sum(), position] = exact.table[(meant * places).sum(), position].detach()
    return Causal(table)


@given(seed=st.integers(0, 1000))
def test_it_is_the_product_of_the_conditionals(seed):
    """Each read from the table at the context (mask, x^1, ..., x^(n-1), masks)."""
    denoiser = Causal(random_table(V, L, seed).table.detach())
    for x in itertools.product(range(V), repeat=L):
        total = 0.0
        for position in range(L):
            context = torch.tensor([[V, *x[:position], *[V] * (L - 1 - position)]])
            hidden = super(Causal, denoiser).forward(context, torch.zeros(1), None)[0, position]
            total -= hidden.log_softmax(dim=0)[x[position]].item()
        assert expectation(
            Autoregressive(AutoregressiveConfig(), V), denoiser, torch.tensor(x)
        ).item() == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize("source", sorted(SOURCES))
def test_exact_conditionals_give_the_distribution(source):
    joint = SOURCES[source]
    denoiser, objective = shifted(exact_table(joint)), Autoregressive(AutoregressiveConfig(), len(joint))
    for x in joint.nonzero():
        cost = expectation(objective, denoiser, x)
        assert torch.exp(-cost).item() == pytest.approx(joint[tuple(x)].item(), rel=1e-12)
