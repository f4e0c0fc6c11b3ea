import math
from types import SimpleNamespace

import pytest
import torch

from mdpipe.networks.base import build_network
from mdpipe.training import progress
from mdpipe.training.flops import training_flops
from mdpipe.training.history import Record
from mdpipe.training.progress import Meter, Progress, print_progress


@pytest.mark.parametrize(("learned", "end"), [("", ""), ("exponents 0.5 / 1 / 2", "  exponents 0.5 / 1 / 2")])
def test_a_line_tells_where_the_run_stands(capfd: pytest.CaptureFixture[str], learned: str, end: str) -> None:
    print_progress(
        Progress(
            step=250,
            steps=1000,
            loss=2.5,
            largest_loss=7.25,
            gradient_norm=0.5,
            learning_rate=3e-4,
            tokens_per_second=31234.5,
            flops_per_second=1.5e11,
            share_of_peak=0.64,
            memory_mib=1234.5,
            seconds_left=3725,
            learned=learned,
        )
    )
    assert capfd.readouterr().err == (
        "step  250/1000   25%  loss 2.5000 bits (up to 7.25)  31,234 tokens/s  1h 02m left  learning rate 3.00e-04"
        f"  gradient 0.5  150 GFLOP/s, 64% of peak  1,234 MiB{end}\n"
    )


def test_speed_and_time_left_come_from_the_clock_and_losses_from_the_steps_since_the_last_report(
    tiny: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    record = Record(tiny.SETTINGS.model_copy(update={"steps": 50}), torch.device("cpu"), {})
    for step in range(50):
        record.write(step, torch.tensor(step * math.log(2)), torch.tensor(float(step)), torch.zeros(0))
    state = SimpleNamespace(
        step=10, device=torch.device("cpu"), record=record, objective=SimpleNamespace(learned=lambda: "much")
    )
    meter = Meter(state, steps=50, flops=3.0, precision="float32")
    meter.count(400)
    assert not meter.due()
    now += 5
    assert meter.due()
    state.step = 20
    first = meter.read(0.1)
    assert (first.tokens_per_second, first.flops_per_second, first.seconds_left) == (80, 240, 15)
    assert (first.loss, first.largest_loss, first.gradient_norm) == pytest.approx((14.5, 19, 14.5))
    assert (first.learned, meter.due()) == ("much", False)
    assert first.memory_mib > 1
    meter.count(100)
    now += 10
    state.step = 40
    second = meter.read(0.1)
    assert (second.tokens_per_second, second.seconds_left) == (10, 5)
    assert second.loss == pytest.approx(29.5)


def test_flops_are_those_of_the_products_three_times_over() -> None:
    """2 a weight and token, 4 L D a layer and token for attention; the network stays on its device."""
    length, width, vocabulary = 8, 16, 5
    network = build_network(
        "transformer",
        vocabulary,
        (length,),
        seed=0,
        layers=2,
        heads=2,
        width=width,
        time_conditioning=False,
        dropout=0.0,
    )
    weights = sum(w.numel() for name, w in network.named_parameters() if w.ndim == 2 and name != "embedding.weight")
    assert training_flops(network, length) == 3 * (2 * weights + 2 * 4 * length * width)
    assert next(network.parameters()).device.type == "cpu"
