import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mdpipe.training.optimizer import EMA, ema_decay_at


@given(decay=st.floats(0, 0.9999), steps=st.integers(1, 40))
def test_the_average_follows_its_formula(decay: float, steps: int) -> None:
    """Average <- d average + (1 - d) weights with d = min(decay, (1 + k) / (10 + k)), from the initial weights."""
    network = nn.Linear(3, 2)
    average = EMA(network, decay)
    expected = network.weight.detach().double().numpy().copy()
    random = np.random.default_rng(0)
    for step in range(steps):
        weights = random.normal(size=(2, 3)).astype(np.float32)
        network.weight.data = torch.from_numpy(weights)
        average.update(step)
        d = min(decay, (1 + step) / (10 + step))
        expected = d * expected + (1 - d) * weights
    np.testing.assert_allclose(average.state_dict()["weight"].numpy(), expected, rtol=1e-5, atol=1e-6)


def test_the_average_is_float32_whatever_the_weights_are() -> None:
    average = EMA(nn.Linear(2, 2).to(torch.bfloat16), 0.9)
    average.update(0)
    assert {tensor.dtype for tensor in average.state_dict().values()} == {torch.float32}


def test_the_average_shares_no_memory_with_the_weights() -> None:
    network = nn.Linear(2, 2)
    average = EMA(network, 0.9)
    before = average.state_dict()["weight"].clone()
    network.weight.data.add_(1)
    assert torch.equal(average.state_dict()["weight"], before)


def test_short_averages_come_first() -> None:
    decays = [ema_decay_at(step, 0.999) for step in (0, 1, 90, 10**6)]
    assert decays == [0.1, 2 / 11, 0.91, 0.999]


def test_a_tail_average_starts_at_its_first_steps_weights() -> None:
    """Up to step 4 it is the weights, exactly; then the average as if step 5 were the first."""
    network = nn.Linear(3, 2)
    tail = EMA(network, 0.9, start=5)
    random = np.random.default_rng(0)
    late: EMA | None = None
    for step in range(20):
        if step == 5:
            late = EMA(network, 0.9)
        network.weight.data = torch.from_numpy(random.normal(size=(2, 3)).astype(np.float32))
        tail.update(step)
        if late is not None:
            late.update(step - 5)
        expected = network.weight.detach() if late is None else late.state_dict()["weight"]
        assert torch.equal(tail.state_dict()["weight"], expected)
