import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mdpipe.diffusion.noise import Noise
from mdpipe.diffusion.objectives.md4 import MD4
from mdpipe.diffusion.schedules.linear import Linear
from mdpipe.networks.base import build_network
from mdpipe.networks.transformer import Transformer
from mdpipe.params import TrainSettings
from mdpipe.training.history import NonFiniteLossError, Record
from mdpipe.training.optimizer import learning_rate_at
from mdpipe.training.parallel import Loss
from mdpipe.training.state import TrainingState
from mdpipe.training.step import Batch, Step
from mdpipe.training.world import World


@pytest.fixture
def settings(tiny: SimpleNamespace) -> TrainSettings:
    chosen: TrainSettings = tiny.SETTINGS.model_copy(update={"steps": 500})
    return chosen


def filled(settings: TrainSettings) -> Record:
    """Loss k bits and gradient norm 2 k at step k."""
    names = ("embedding", "mlp.0", "mlp.1", "norm", "head")
    record = Record(settings, torch.device("cpu"), {name: nn.Parameter(torch.ones(())) for name in names})
    for step in range(settings.steps):
        record.write(step, torch.tensor(step * math.log(2)), torch.tensor(2.0 * step), torch.ones(5))
    return record


def test_rows_are_means_over_the_steps_since_the_row_before(settings: TrainSettings) -> None:
    rows = filled(settings).rows()
    assert [row.step for row in rows] == list(range(2, 501, 2))
    for row in rows:
        assert row.loss == pytest.approx(row.step - 1.5)
        assert row.gradient_norm == pytest.approx(2 * row.step - 3)
        assert row.learning_rate == learning_rate_at(row.step - 1, settings)


@pytest.mark.parametrize("steps", [1, 199, 200, 399, 401, 1001])
def test_every_step_is_in_one_row_and_the_last_row_is_the_last_step(settings: TrainSettings, steps: int) -> None:
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
def test_the_first_step_that_is_not_finite_is_named(settings: TrainSettings, bad: float, what: str) -> None:
    record = filled(settings)
    record.check(100)
    for step in (123, 150):
        loss, gradient = (bad, 1.0) if what == "loss" else (1.0, bad)
        record.write(step, torch.tensor(loss), torch.tensor(gradient), torch.ones(5))
    record.check(123)
    with pytest.raises(NonFiniteLossError, match=r"step 124 of 500.*Lower train\.learning_rate"):
        record.check(200)


class FiniteOnlyForward(nn.Module):
    """A layer's inside, to which is added a 0 whose gradient is infinite."""

    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.inside = inside

    def forward(self, x: Tensor, *context: Any) -> Tensor:
        update: Tensor = self.inside(x, *context)
        return update + (0 * x).sqrt()


def stepped(tiny: SimpleNamespace, network: nn.Module) -> TrainingState:
    """The state after a step that trains the network."""
    objective = MD4(Linear(), tiny.VOCABULARY)
    state = TrainingState(network, objective, tiny.SETTINGS)
    step = Step(state, Loss(network, objective), tiny.SETTINGS, tiny.HARDWARE, Noise(0, "train"), World())
    step.take(lambda number, rows: Batch(tiny.batch(number)[rows.start : rows.stop]))
    return state


@pytest.fixture
def network(tiny: SimpleNamespace) -> Transformer:
    sizes = {"layers": 3, "heads": 2, "width": 8, "time_conditioning": False, "dropout": 0.0}
    built = build_network("transformer", tiny.VOCABULARY, (tiny.LENGTH,), seed=0, **sizes)
    assert isinstance(built, Transformer)
    return built


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("mlp", "mlp.1.norm.weight, attention.1.inner.output.weight, attention.1.inner.input.weight"),
        ("attention", "attention.1.norm.weight, mlp.0.inner.output.weight, mlp.0.inner.input.weight"),
    ],
)
def test_of_a_gradient_that_breaks_on_the_way_back_the_parameters_next_to_the_break_are_named(
    tiny: SimpleNamespace, network: Transformer, kind: str, names: str
) -> None:
    """It breaks in the second of three layers; the network names all attention before all MLPs."""
    layer = getattr(network, kind)[1]
    layer.inner = FiniteOnlyForward(layer.inner)
    state = stepped(tiny, network)
    with pytest.raises(NonFiniteLossError, match=rf"way back from the loss, .* in step 1: .* first, of {names} and"):
        state.record.check(1)


def test_a_layer_that_overflows_is_told_from_a_gradient_that_does(tiny: SimpleNamespace, network: Transformer) -> None:
    with torch.no_grad():
        network.mlp[1].inner.output.weight.fill_(torch.finfo(torch.float32).max)
    state = stepped(tiny, network)
    with pytest.raises(NonFiniteLossError, match=r"the loss is nan .* way to the loss, in step 1: .* only followed"):
        state.record.check(1)


def test_the_step_in_which_it_began_counts(settings: TrainSettings) -> None:
    """What is not finite later says nothing."""
    record = filled(settings)
    bad, worse = torch.ones(5), torch.full((5,), math.nan)
    bad[1] = math.inf
    record.write(123, torch.tensor(1.0), torch.tensor(math.inf), bad)
    record.write(124, torch.tensor(math.nan), torch.tensor(math.nan), worse)
    with pytest.raises(NonFiniteLossError, match=r"step 124 of 500.* in step 124: .* first, of mlp\.0\. The"):
        record.check(200)


def test_of_a_loss_that_is_not_finite_the_gradients_that_grew_before_it_are_named(settings: TrainSettings) -> None:
    record = filled(settings)
    grown, nothing = torch.tensor([1.0, 40.0, 1.0, 7.0, 1.0]), torch.full((5,), math.nan)
    record.write(123, torch.tensor(1.0), torch.tensor(40.0), grown)
    for step in (124, 125):
        record.write(step, torch.tensor(math.nan), torch.tensor(math.nan), nothing)
    with pytest.raises(
        NonFiniteLossError, match=r"step 125 of 500.* usual norm in mlp\.0 \(40 times\), norm \(7 times\)\. The"
    ):
        record.check(200)
