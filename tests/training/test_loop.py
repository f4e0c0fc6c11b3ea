import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from mdpipe.diffusion.denoiser import Denoiser
from mdpipe.diffusion.objectives.genmd4 import GenMD4
from mdpipe.diffusion.objectives.md4 import MD4
from mdpipe.diffusion.schedules.base import Cosine
from mdpipe.params import HardwareConfig
from mdpipe.params.diffusion import GenMD4Config
from mdpipe.training import loop
from mdpipe.training.checkpoint import RunHashMismatchError
from mdpipe.training.loop import TrainResult
from mdpipe.training.metrics import NonFiniteLossError, TrainMetrics
from tests.diffusion.all_kinds import every_objective

pytestmark = pytest.mark.slow


def test_the_loss_falls_on_copies_of_one_letter(tiny: SimpleNamespace, tmp_path: Path) -> None:
    """From log2 5 = 2.32 bits a token, guessing, to less than half; knowing all it would be 2.32 / 8."""
    settings = tiny.SETTINGS.model_copy(update={"steps": 150, "batch_size": 16, "learning_rate": 0.03})

    def batches(step: int) -> Tensor:
        return (step + torch.arange(16) % 5)[:, None].expand(-1, tiny.LENGTH) % tiny.VOCABULARY

    history = tiny.tiny_run(tmp_path, batches, settings, dropout=0.0).history
    assert history[0].step == 1
    assert 1.5 < sum(row.loss for row in history[:3]) / 3 < 3.5
    assert sum(row.loss for row in history[-20:]) / 20 < 1.1


@pytest.mark.parametrize(
    ("changes", "precision"), [({}, "bfloat16"), ({"max_grad_norm": None, "warmup_steps": 0}, "float32")]
)
def test_a_run_is_a_function_of_its_settings(
    tiny: SimpleNamespace,
    assert_same_bytes: Callable[[TrainResult, TrainResult], None],
    tmp_path: Path,
    changes: dict[str, object],
    precision: str,
) -> None:
    settings = tiny.SETTINGS.model_copy(update=changes)
    hardware = HardwareConfig(precision=precision)
    first, second = (tiny.tiny_run(tmp_path / name, settings=settings, hardware=hardware) for name in "ab")
    assert_same_bytes(first, second)
    assert {weight.dtype for weight in first.weights.values()} == {torch.float32}


def test_settings_decide_the_weights(
    tiny: SimpleNamespace, uninterrupted: tuple[Path, TrainResult], tmp_path: Path
) -> None:
    """Each of these reaches the computation: with another value other weights come out."""
    _, expected = uninterrupted
    others = [{"dropout": 0.0}] + [
        {"settings": tiny.SETTINGS.model_copy(update=change)}
        for change in (
            {"learning_rate": 0.02},
            {"warmup_steps": 0},
            {"optimizer": tiny.SETTINGS.optimizer.model_copy(update={"weight_decay": 0.5})},
            {"optimizer": tiny.SETTINGS.optimizer.model_copy(update={"beta2": 0.9})},
            {"optimizer": tiny.MUON.optimizer},
            {"optimizer": tiny.MUON.optimizer.model_copy(update={"momentum": 0.5})},
            {"max_grad_norm": 1e-4},
            {"ema_decay": 0.05},
        )
    ]
    others.append({"hardware": HardwareConfig(precision="bfloat16")})
    for number, options in enumerate(others):
        result = tiny.tiny_run(tmp_path / str(number), **options)
        assert any(not torch.equal(weight, expected.weights[name]) for name, weight in result.weights.items()), options


def test_checkpoint_interval_does_not_change_the_result(
    tiny: SimpleNamespace,
    uninterrupted: tuple[Path, TrainResult],
    assert_same_bytes: Callable[[TrainResult, TrainResult], None],
    tmp_path: Path,
) -> None:
    settings = tiny.SETTINGS.model_copy(update={"save_every": 100})
    assert_same_bytes(tiny.tiny_run(tmp_path, settings=settings), uninterrupted[1])


def test_non_finite_loss_stops_and_keeps_a_good_checkpoint(
    tiny: SimpleNamespace,
    uninterrupted: tuple[Path, TrainResult],
    assert_same_bytes: Callable[[TrainResult, TrainResult], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = loop.learning_rate_at
    with monkeypatch.context() as patch:
        patch.setattr(loop, "learning_rate_at", lambda k, settings: float("nan") if k == 6 else right(k, settings))
        with pytest.raises(NonFiniteLossError, match="step 8 of 12"):
            tiny.tiny_run(tmp_path)
    assert_same_bytes(tiny.tiny_run(tmp_path), uninterrupted[1])


def test_another_runs_work_folder_is_refused(
    tiny: SimpleNamespace, uninterrupted: tuple[Path, TrainResult], tmp_path: Path
) -> None:
    shutil.copytree(uninterrupted[0], tmp_path / "copy")
    with pytest.raises(RunHashMismatchError, match=r"hash tiny, this one has other"):
        tiny.tiny_run(tmp_path / "copy", run_hash="other")


def test_each_step_has_its_own_masks_and_stratified_times(
    tiny: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Tensor, Tensor]] = []
    loss = MD4.loss

    def spy(self: MD4, denoiser: Denoiser, tokens: Tensor, time: Tensor, u: Tensor, *others: Any) -> Tensor:
        seen.append((time, u))
        return loss(self, denoiser, tokens, time, u, *others)

    monkeypatch.setattr(MD4, "loss", spy)
    tiny.tiny_run(tmp_path)
    times, u = (torch.stack(draws) for draws in zip(*seen, strict=True))
    assert (len(times.unique()), len(u.unique())) == (times.numel(), u.numel())
    assert not torch.isin(times, u).any()
    spread = times.sort(dim=1).values.diff(dim=1)
    torch.testing.assert_close(spread, torch.full_like(spread, 1 / tiny.SETTINGS.batch_size))


def test_clipping_is_of_the_networks_gradient_alone(tiny: SimpleNamespace, tmp_path: Path) -> None:
    """Clipped to far below AdamW's epsilon of 1e-8 the network stays where it was; GenMD4's exponents move on."""
    still = tiny.SETTINGS.optimizer.model_copy(update={"weight_decay": 0.0})
    settings = tiny.SETTINGS.model_copy(update={"max_grad_norm": 1e-12, "optimizer": still, "ema_decay": 0.0})
    still = settings.model_copy(update={"steps": 1, "warmup_steps": 0, "learning_rate": 1e-30})
    start, end = (
        tiny.tiny_run(
            tmp_path / name,
            settings=chosen,
            objective=GenMD4(GenMD4Config(exponent_learning_rate=10 * chosen.learning_rate), tiny.VOCABULARY),
        )
        for name, chosen in (("start", still), ("end", settings))
    )
    for name, weight in end.weights.items():
        torch.testing.assert_close(weight, start.weights[name], rtol=0, atol=1e-4)
    moved = (end.objective_weights["schedule.raw"] - start.objective_weights["schedule.raw"]).abs()
    assert (moved > 0.05).all()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_every_objective_trains_in_both_precisions(tiny: SimpleNamespace, tmp_path: Path, precision: str) -> None:
    """A few steps of each have a loss of the right size and a gradient."""
    hardware = HardwareConfig(precision=precision)
    for name, objective in every_objective(tiny.VOCABULARY, Cosine()).items():
        history = tiny.tiny_run(tmp_path / name, hardware=hardware, objective=objective).history
        assert len(history) == tiny.SETTINGS.steps
        assert all(0 < row.loss < 20 and row.grad_norm > 0 for row in history), name


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_slow_bfloat16_is_logged_once(
    tiny: SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    precision: str,
) -> None:
    monkeypatch.setattr(loop, "find_bfloat16_problem", lambda device: f"bfloat16 is slow on {device}")
    tiny.tiny_run(tmp_path, hardware=HardwareConfig(precision=precision))
    assert capfd.readouterr().err.splitlines().count("bfloat16 is slow on cpu") == (precision == "bfloat16")


def test_last_step_is_logged(tiny: SimpleNamespace, tmp_path: Path) -> None:
    reports: list[TrainMetrics] = []
    tiny.tiny_run(tmp_path, log_metrics=reports.append)
    assert (reports[-1].step, reports[-1].steps) == (12, 12)
    assert reports[-1].scalars["perf/eta_s"] == 0
    assert reports[-1].scalars["train/loss"] > 0
