import math
from types import SimpleNamespace

import pytest
import torch

from mdpipe.params import TrainSettings
from mdpipe.training.history import NonFiniteLossError, Record
from mdpipe.training.optimizer import learning_rate_at


@pytest.fixture
def settings(tiny: SimpleNamespace) -> TrainSettings:
    chosen: TrainSettings = tiny.SETTINGS.model_copy(update={"steps": 500})
    return chosen


def filled(settings: TrainSettings) -> Record:
    """Loss k bits and gradient norm 2 k at step k."""
    record = Record(settings, torch.device("cpu"), ["embedding", "mlp.0", "mlp.1", "norm", "head"])
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


def test_the_parameters_that_went_first_are_named(settings: TrainSettings) -> None:
    record = filled(settings)
    bad, worse = torch.ones(5), torch.full((5,), math.nan)
    bad[1] = math.inf
    record.write(123, torch.tensor(1.0), torch.tensor(math.inf), bad)
    record.write(124, torch.tensor(math.nan), torch.tensor(math.nan), worse)
    with pytest.raises(NonFiniteLossError, match=r"step 124 of 500.*first, in step 124: the gradient of mlp\.0\. The"):
        record.check(200)
    record = filled(settings)
    record.write(124, torch.tensor(math.nan), torch.tensor(math.nan), worse)
    with pytest.raises(NonFiniteLossError, match=r"in step 125: .* of embedding, mlp\.0, mlp\.1 and 2 others"):
        record.check(200)
