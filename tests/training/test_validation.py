"""Validation decides nothing, unless the best weights are kept, and survives interruptions."""

import csv
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from mdpipe.diffusion.objectives.base import Objective
from mdpipe.diffusion.objectives.baselines import Autoregressive
from mdpipe.diffusion.objectives.genmd4 import GenMD4
from mdpipe.diffusion.objectives.md4 import MD4
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.networks.base import NetworkSpec, build_network
from mdpipe.params.diffusion import AutoregressiveConfig, GenMD4Config, MD4Config
from mdpipe.params.networks import TransformerConfig
from mdpipe.params.training import ValidationConfig
from mdpipe.stages.train import _write_curve
from mdpipe.training.loop import TrainResult
from mdpipe.training.metrics import HistoryRow, TrainMetrics
from mdpipe.training.validation import Validation, Validator

Same = Callable[[TrainResult, TrainResult], None]
RNG = CounterRNG(0, "validation")


def build(tiny: SimpleNamespace, objective: Objective, cls: type[Validator] = Validator, **settings: Any) -> Validator:
    """Build a validator of the network of `tiny_run`. Neighbors differ in its examples, and never in training."""
    config = TransformerConfig(num_layers=1, num_heads=2, hidden_size=8, time_conditioning=True, dropout=0.1)
    network = build_network(NetworkSpec(config, tiny.VOCABULARY, (tiny.LENGTH,)), seed=0)
    examples = torch.arange(12 * tiny.LENGTH).view(12, -1) % tiny.VOCABULARY
    return cls(network, objective, examples, None, ValidationConfig(**settings), tiny.SETTINGS.steps, RNG)


def md4(tiny: SimpleNamespace) -> MD4:
    return MD4(MD4Config(), tiny.VOCABULARY)


def test_weights_and_losses_are_those_without_validation(
    tiny: SimpleNamespace, uninterrupted: tuple[Path, TrainResult], assert_same_bytes: Same, tmp_path: Path
) -> None:
    result = tiny.tiny_run(tmp_path, validator=build(tiny, md4(tiny), every=5))
    assert_same_bytes(result, uninterrupted[1])
    assert [bound.step for bound in result.validations] == [5, 10, 12]
    assert uninterrupted[1].validations == []


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_value_and_error_are_those_of_the_examples(tiny: SimpleNamespace, batch_size: int) -> None:
    """An autoregressive likelihood is exact: the mean over the examples of -log p, without Monte Carlo error."""
    config = TransformerConfig(num_layers=1, num_heads=2, hidden_size=8)
    network = build_network(NetworkSpec(config, tiny.VOCABULARY, (tiny.LENGTH,), causal=True), seed=0)
    torch.nn.init.normal_(network.head.weight, generator=torch.Generator().manual_seed(0))
    objective = Autoregressive(AutoregressiveConfig(), tiny.VOCABULARY)
    examples = torch.arange(7 * tiny.LENGTH).view(7, -1) ** 2 % tiny.VOCABULARY
    settings = ValidationConfig(every=1, batch_size=batch_size)
    validator = Validator(network, objective, examples, None, settings, 1, RNG)
    found = validator.validate(1, network.state_dict(), {})
    shifted = torch.cat([torch.full((7, 1), tiny.VOCABULARY), examples[:, :-1]], dim=1)
    with torch.no_grad():
        log_p = network.eval().head(network(shifted, torch.zeros(7), None)).log_softmax(-1).double()
    bits = -log_p.gather(2, examples[..., None]).squeeze(2).mean(1) / math.log(2)
    assert found.value == pytest.approx(bits.mean().item(), rel=1e-6)
    assert found.stderr == pytest.approx((bits.std() / math.sqrt(7)).item(), rel=1e-5)


def test_uniform_predictions_cost_log_v_bits(tiny: SimpleNamespace) -> None:
    """The output layer begins at zero; a z-score above 5 occurs once in two million draws."""
    validator = build(tiny, md4(tiny), every=1, num_mc_samples=512)
    network = validator._network
    found = validator.validate(1, network.state_dict(), md4(tiny).state_dict())
    assert abs(found.value - math.log2(tiny.VOCABULARY)) < 5 * found.stderr


@pytest.mark.parametrize("keep_best", [False, True])
def test_interrupted_run_has_the_same_validations_and_weights(
    tiny: SimpleNamespace, assert_same_bytes: Same, tmp_path: Path, keep_best: bool
) -> None:
    """GenMD4's exponents move, so a validator that forgot the averaged objective would show it."""

    class StoppedError(Exception):
        pass

    def stopping(step: int) -> Tensor:
        if step == 8:
            raise StoppedError
        batch: Tensor = tiny.batch(step)
        return batch

    def run(folder: str, **options: Any) -> TrainResult:
        objective = GenMD4(GenMD4Config(exponent_learning_rate=0.1), tiny.VOCABULARY)
        validator = build(tiny, objective, every=2, keep_best=keep_best)
        result: TrainResult = tiny.tiny_run(tmp_path / folder, objective=objective, validator=validator, **options)
        return result

    whole = run("whole")
    with pytest.raises(StoppedError):
        run("stopped", batches=stopping)
    resumed = run("stopped")
    assert_same_bytes(resumed, whole)
    assert resumed.validations == whole.validations
    assert len({bound.value for bound in whole.validations}) == len(whole.validations) == 6


def test_keep_best_returns_the_weights_of_the_lowest_bound(tiny: SimpleNamespace, tmp_path: Path) -> None:
    """Examples unlike the training data are predicted worse and worse, so that the last weights are not the best."""
    seen = {}

    class Recording(Validator):
        def validate(self, step: int, weights: Any, objective_weights: Any) -> Validation:
            seen[step] = {name: tensor.clone() for name, tensor in weights.items()}
            return super().validate(step, weights, objective_weights)

    validator = build(tiny, md4(tiny), Recording, every=1, keep_best=True)
    result = tiny.tiny_run(tmp_path, validator=validator)
    best = min(result.validations, key=lambda bound: bound.value).step
    assert 1 <= best < tiny.SETTINGS.steps
    for name, weight in seen[best].items():
        assert torch.equal(result.weights[name], weight), name


def test_validations_are_logged_when_they_are_made(tiny: SimpleNamespace, tmp_path: Path) -> None:
    logged: list[TrainMetrics] = []
    result = tiny.tiny_run(tmp_path, validator=build(tiny, md4(tiny), every=5), log_metrics=logged.append)
    assert [metrics.validation for metrics in logged] == result.validations
    last = logged[-1]
    assert last.scalars["validation/loss"] == result.validations[-1].value
    assert f"validation {result.validations[-1].value:.4f} ± " in str(last)


def test_curve_has_rows_for_losses_and_validations(tmp_path: Path) -> None:
    history = [HistoryRow(2, 3.0, 0.1, 1.0), HistoryRow(4, 2.5, 0.05, 0.5)]
    path = tmp_path / "curve.csv"
    _write_curve(path, TrainResult({}, {}, history, [Validation(3, 2.75, 0.25), Validation(4, 2.5, 0.125)]))
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["step", "train/loss", "train/lr", "train/grad_norm", "validation/loss", "validation/stderr"],
        ["2", "3", "0.1", "1", "", ""],
        ["3", "", "", "", "2.75", "0.25"],
        ["4", "2.5", "0.05", "0.5", "2.5", "0.125"],
    ]
    _write_curve(path, TrainResult({}, {}, history, []))
    assert path.read_text().splitlines()[0] == "step,train/loss,train/lr,train/grad_norm"
