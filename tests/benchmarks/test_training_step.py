"""The settings that benchmarks train with are valid settings of a run, and leave nothing out."""

from dataclasses import asdict, fields

import pytest

from mdpipe.benchmarks.training import AdamW, Hardware, Muon, Train, summarize_speed
from mdpipe.params import AdamW as AdamWParams
from mdpipe.params import HardwareSettings, TrainSettings
from mdpipe.params import Muon as MuonParams


@pytest.mark.parametrize(
    ("settings", "model"),
    [
        (Train(steps=1, batch_size=1), TrainSettings),
        (Hardware("float32", threads=1), HardwareSettings),
        (AdamW(), AdamWParams),
        (Muon(), MuonParams),
    ],
    ids=["train", "hardware", "adamw", "muon"],
)
def test_benchmark_settings_are_those_of_params(settings, model):
    """Also a key that params.yaml need not have: training reads it as an attribute."""
    assert {field.name for field in fields(settings)} == set(model.model_fields)
    assert model.model_validate(asdict(settings)).model_dump() == asdict(settings)


def test_speed_is_the_mean_of_the_measured_steps():
    speed = summarize_speed([1.0, 3.0], batch=4, length=10, flops=5.0, peak_flops=1000.0)
    assert speed["seconds_per_step"] == 2 and speed["seconds_stderr"] == pytest.approx(1)
    assert speed["tokens_per_second"] == 20 and speed["examples_per_second"] == 2
    assert speed["flops_per_second"] == 100 and speed["mfu"] == 0.1
    assert summarize_speed([1.0], 4, 10, 5.0, 1000.0)["seconds_stderr"] is None
