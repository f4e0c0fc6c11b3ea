"""Validation decides nothing, unless the best weights are kept, and survives interruptions."""

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from mdpipe.diffusion.objectives.base import Objective
from mdpipe.diffusion.objectives.genmd4 import GenMD4
from mdpipe.diffusion.objectives.md4 import MD4
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.evaluation.likelihood import likelihood_bound
from mdpipe.networks.base import NetworkSpec, build_network
from mdpipe.params import EstimatorConfig
from mdpipe.params.diffusion import GenMD4Config, MD4Config
from mdpipe.params.networks import TransformerConfig
from mdpipe.params.training import ValidationConfig
from mdpipe.stages.train import _write_curve
from mdpipe.training.loop import TrainResult
from mdpipe.training.metrics import HistoryRow, TrainMetrics
from mdpipe.training.validation import Validation, Validator

Same = Callable[[TrainResult, TrainResult], None]


def build(tiny: SimpleNamespace, objective: Objective, cls: type[Validator] = Validator, **settings: Any) -> Validator:
    """Build a validator of the network of `tiny_run`. Neighbors differ in its examples, and never in training."""
    config = TransformerConfig(num_layers=1, num_heads=2, hidden_size=8, time_conditioning=True, dropout=0.1)
    network = build_network(NetworkSpec(config, tiny.VOCABULARY, (tiny.LENGTH,)), seed=0)
    examples = Examples(np.arange(12 * tiny.LENGTH).reshape(12, -1) % tiny.VOCABULARY)

    def estimate(objective: Objective, network: torch.nn.Module) -> tuple[float, float]:
        rng = CounterRNG(0, "validation")
        bits = likelihood_bound(objective, network, examples, EstimatorConfig(num_mc_samples=2), rng).bits_per_token()
        return bits.value, bits.stderr

    return cls(network, objective, estimate, ValidationConfig(**settings), tiny.SETTINGS.steps)


@dataclass(frozen=True)
class Examples:
    """Tokens (N, L) of the tiny run's vocabulary."""

    tokens: NDArray[np.int64]
    vocab_size: int = 5

    @property
    def examples(self) -> int:
        return len(self.tokens)

    def evaluation_batches(self, batch_size: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        yield np.arange(len(self.tokens)), self.tokens


def md4(tiny: SimpleNamespace) -> MD4:
    return MD4(MD4Config(), tiny.VOCABULARY)


def test_weights_and_losses_are_those_without_validation(
    tiny: SimpleNamespace, uninterrupted: tuple[Path, TrainResult], assert_same_bytes: Same, tmp_path: Path
) -> None:
    result = tiny.tiny_run(tmp_path, validator=build(tiny, md4(tiny), every=5))
    assert_same_bytes(result, uninterrupted[1])
    assert [bound.step for bound in result.validations] == [5, 10, 12]
    assert uninterrupted[1].validations == []


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
