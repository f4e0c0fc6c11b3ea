import pytest

from mdpipe.training import progress
from mdpipe.training.progress import Meter, Progress, print_progress


def test_a_line_tells_where_the_run_stands(capfd: pytest.CaptureFixture[str]) -> None:
    print_progress(
        Progress(step=250, steps=1000, loss=2.5, learning_rate=3e-4, tokens_per_second=31234.5, seconds_left=3725)
    )
    assert capfd.readouterr().err == (
        "step  250/1000   25%  loss 2.5000 bits  31,234 tokens/s  1h 02m left  learning rate 3.00e-04\n"
    )


def test_speed_and_time_left_come_from_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    meter = Meter(step=10, steps=50)
    meter.count(400)
    assert not meter.due()
    now += 5
    assert meter.due()
    first = meter.read(20, 1.0, 0.1)
    assert (first.tokens_per_second, first.seconds_left) == (80, 15)
    assert (meter.reported_step, meter.due()) == (20, False)
    meter.count(100)
    now += 10
    second = meter.read(40, 1.0, 0.1)
    assert (second.tokens_per_second, second.seconds_left) == (10, 5)
