import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mdpipe.diffusion.objectives.md4 import MD4
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.networks.base import NetworkSpec, build_network
from mdpipe.networks.transformer import Transformer
from mdpipe.params import HardwareConfig, TrainConfig
from mdpipe.params.diffusion import MD4Config
from mdpipe.params.networks import TransformerConfig
from mdpipe.training.loop import Batch, Trainer
from mdpipe.training.metrics import MetricsHistory, NonFiniteLossError
from mdpipe.training.optimizer import learning_rate_at


@pytest.fixture
def settings(tiny: SimpleNamespace) -> TrainConfig:
    chosen: TrainConfig = tiny.SETTINGS.model_copy(update={"steps": 500})
    return chosen


def filled(settings: TrainConfig) -> MetricsHistory:
    """Loss k bits and gradient norm 2 k at step k."""
    names = ["embedding", "mlp.0", "mlp.1", "norm", "head"]
    history = MetricsHistory(settings, torch.device("cpu"), names)
    for step in range(settings.steps):
        history.record(step, torch.tensor(step * math.log(2)), torch.tensor(2.0 * step), torch.ones(5))
    return history


def test_rows_are_means_over_the_steps_since_the_row_before(settings: TrainConfig) -> None:
    rows = filled(settings).rows()
    assert [row.step for row in rows] == list(range(2, 501, 2))
    for row in rows:
        assert row.loss == pytest.approx(row.step - 1.5)
        assert row.grad_norm == pytest.approx(2 * row.step - 3)
        assert row.lr == learning_rate_at(row.step - 1, settings)


@pytest.mark.parametrize("steps", [1, 199, 200, 399, 401, 1001])
def test_every_step_is_in_one_row_and_the_last_row_ends_the_run(settings: TrainConfig, steps: int) -> None:
    rows = filled(settings.model_copy(update={"steps": steps})).rows()
    ends = [row.step for row in rows]
    assert ends == sorted(set(ends))
    assert ends[-1] == steps
    assert len(ends) <= 400
    lengths = [end - first for first, end in zip([0, *ends], ends, strict=False)]
    assert sum(length * row.loss for length, row in zip(lengths, rows, strict=True)) == pytest.approx(
        steps * (steps - 1) / 2
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_the_first_step_that_is_not_finite_is_named(settings: TrainConfig, bad: float, what: str) -> None:
    history = filled(settings)
    history.require_finite(100)
    for step in (123, 150):
        loss, gradient = (bad, 1.0) if what == "loss" else (1.0, bad)
        history.record(step, torch.tensor(loss), torch.tensor(gradient), torch.ones(5))
    history.require_finite(123)
    with pytest.raises(NonFiniteLossError, match=r"step 124 of 500.*Lower train\.learning_rate"):
        history.require_finite(200)


def test_a_first_loss_that_is_not_finite_is_the_networks(settings: TrainConfig) -> None:
    history = MetricsHistory(settings, torch.device("cpu"), ["weight"])
    history.record(0, torch.tensor(math.nan), torch.tensor(math.nan), torch.full((1,), math.nan))
    with pytest.raises(NonFiniteLossError, match=r"step 1 of 500.*look at the network and its initial weights"):
        history.require_finite(1)


class FiniteOnlyForward(nn.Module):
    """Adds to a layer's output a 0 whose gradient is infinite."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor, *context: Any) -> Tensor:
        update: Tensor = self.inner(x, *context)
        return update + (0 * x).sqrt()


def test_parameters_with_non_finite_gradients_are_named(tiny: SimpleNamespace) -> None:
    """The backward pass breaks in the first of two layers; the second and the head are finite."""
    config = TransformerConfig(num_layers=2, num_heads=2, hidden_size=8)
    network = build_network(NetworkSpec(config, tiny.VOCABULARY, (tiny.LENGTH,)), seed=0)
    assert isinstance(network, Transformer)
    network.attention[0].inner = FiniteOnlyForward(network.attention[0].inner)
    objective = MD4(MD4Config(), tiny.VOCABULARY)
    trainer = Trainer(network, objective, tiny.SETTINGS, HardwareConfig(), CounterRNG(0, "train"))
    trainer.train_step(lambda number, rows: Batch(tiny.batch(number)[rows.start : rows.stop]))
    with pytest.raises(NonFiniteLossError, match=r"non-finite gradients: embedding\.weight, [\w.]+\. The last"):
        trainer.state.history.require_finite(1)


def test_only_parameters_of_the_first_bad_step_are_named(settings: TrainConfig) -> None:
    history = filled(settings)
    bad, worse = torch.ones(5), torch.full((5,), math.nan)
    bad[1] = math.inf
    history.record(123, torch.tensor(1.0), torch.tensor(math.inf), bad)
    history.record(124, torch.tensor(math.nan), torch.tensor(math.nan), worse)
    with pytest.raises(NonFiniteLossError, match=r"step 124 of 500.* non-finite gradients: mlp\.0\. The"):
        history.require_finite(200)


def test_an_error_names_a_few_parameters_and_counts_the_others(settings: TrainConfig) -> None:
    history = filled(settings)
    history.record(123, torch.tensor(math.nan), torch.tensor(math.nan), torch.full((5,), math.nan))
    with pytest.raises(NonFiniteLossError, match=r"gradients: embedding, mlp\.0, mlp\.1 and 2 more\. The"):
        history.require_finite(200)
