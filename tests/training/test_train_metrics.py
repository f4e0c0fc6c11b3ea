import math
from types import SimpleNamespace

import pytest
import torch

from mdpipe.networks.base import NetworkSpec, build_network
from mdpipe.params.networks import TransformerConfig
from mdpipe.training import metrics
from mdpipe.training.loggers import log_to_console
from mdpipe.training.metrics import MetricsHistory, MetricsProcessor, TrainMetrics
from mdpipe.training.performance import training_flops


@pytest.mark.parametrize(("learned", "end"), [("", ""), ("exponents 0.5 / 1 / 2", "  exponents 0.5 / 1 / 2")])
def test_log_line_format(capfd: pytest.CaptureFixture[str], learned: str, end: str) -> None:
    log_to_console(
        TrainMetrics(
            step=250,
            steps=1000,
            scalars={
                "train/loss": 2.5,
                "train/max_loss": 7.25,
                "train/grad_norm": 0.5,
                "train/lr": 3e-4,
                "perf/tokens_per_sec": 31234.5,
                "perf/flops_per_sec": 1.5e11,
                "perf/mfu": 0.64,
                "perf/peak_mem_mib": 1234.5,
                "perf/eta_s": 3725,
            },
            objective=learned,
        )
    )
    assert capfd.readouterr().err == (
        "step  250/1000   25%  loss 2.5000 bits (max 7.25)  lr 3.00e-04  grad_norm 0.5  31,234 tokens/s  150 GFLOP/s"
        f"  MFU 64%  1,234 MiB  1h 02m left{end}\n"
    )


def test_metrics_cover_the_steps_since_the_last_log(tiny: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(metrics.time, "monotonic", lambda: now)
    history = MetricsHistory(tiny.SETTINGS.model_copy(update={"steps": 50}), torch.device("cpu"), [])
    for step in range(50):
        history.record(step, torch.tensor(step * math.log(2)), torch.tensor(float(step)), torch.zeros(0))
    state = SimpleNamespace(
        step=10,
        device=torch.device("cpu"),
        history=history,
        objective=SimpleNamespace(extra_metrics=lambda: {"w": 0.5}),
    )
    processor = MetricsProcessor(state, steps=50, flops=3.0, precision="float32")
    processor.add_tokens(400)
    assert not processor.is_due()
    now += 5
    assert processor.is_due()
    state.step = 20
    first = processor.compute(0.1)
    assert [first.scalars[f"perf/{name}"] for name in ("tokens_per_sec", "flops_per_sec", "eta_s")] == [80, 240, 15]
    losses = [first.scalars[f"train/{name}"] for name in ("loss", "max_loss", "grad_norm")]
    assert losses == pytest.approx([14.5, 19, 14.5])
    assert (first.objective, processor.is_due()) == ("w 0.5", False)
    assert first.scalars["perf/peak_mem_mib"] > 1
    processor.add_tokens(100)
    now += 10
    state.step = 40
    second = processor.compute(0.1)
    assert [second.scalars[f"perf/{name}"] for name in ("tokens_per_sec", "eta_s")] == [10, 5]
    assert second.scalars["train/loss"] == pytest.approx(29.5)


def test_flops_are_those_of_the_products_three_times_over() -> None:
    """2 a weight and token, 4 L D a layer and token for attention; the network stays on its device."""
    length, width, vocabulary = 8, 16, 5
    config = TransformerConfig(num_layers=2, num_heads=2, hidden_size=width)
    network = build_network(NetworkSpec(config, vocabulary, (length,)), seed=0)
    weights = sum(w.numel() for name, w in network.named_parameters() if w.ndim == 2 and name != "embedding.weight")
    assert training_flops(network, length) == 3 * length * (2 * weights + 2 * 4 * length * width)
    assert next(network.parameters()).device.type == "cpu"
