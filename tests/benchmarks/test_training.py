"""Measurements of training, and `mdpipe bench train`."""

import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from mdpipe.benchmarks.settings import SHAPES, Shape, TrainingSettings
from mdpipe.benchmarks.training import BENCHMARK, measure, summarize_speed
from mdpipe.cli import app
from mdpipe.networks.base import NetworkSpec, build_uninitialized, count_parameters
from mdpipe.params.networks import TransformerConfig

pytestmark = pytest.mark.slow

NETWORK = TransformerConfig(num_layers=1, num_heads=2, hidden_size=16, time_conditioning=True)
TINY = TrainingSettings(shape="text8", batch=3, steps=2, warm_up=1)


@pytest.fixture
def small_text8(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SHAPES, "text8", Shape(NETWORK, 27, (8,), 2))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"objective": "genmd4"},
        {"precision": "bfloat16", "activation_checkpointing": True},
        {"optimizer": "muon"},
    ],
)
def test_numbers_agree_with_each_other(small_text8, changes):
    result = measure(replace(TINY, **changes))
    assert result["tokens_per_second"] * result["seconds_per_step"] == pytest.approx(3 * 8)
    assert result["tokens_per_second"] == pytest.approx(8 * result["examples_per_second"])
    assert result["mfu"] == pytest.approx(result["flops_per_second"] / result["peak_flops"])
    assert 0 < result["peak_mem_mib_before"] <= result["peak_mem_mib"]
    assert result["first_step_seconds"] > 0
    assert (result["orthogonalization_seconds"] > 0) == ("optimizer" in changes)
    assert result["orthogonalization_seconds"] == pytest.approx(
        result["orthogonalization_fraction"] * result["seconds_per_step"]
    )


def test_speed_is_the_mean_of_the_measured_steps():
    speed = summarize_speed([1.0, 3.0], batch=4, length=10, flops=5.0, peak_flops=1000.0)
    assert speed["seconds_per_step"] == 2 and speed["seconds_stderr"] == pytest.approx(1)
    assert speed["tokens_per_second"] == 20 and speed["examples_per_second"] == 2
    assert speed["flops_per_second"] == 100 and speed["mfu"] == 0.1
    assert summarize_speed([1.0], 4, 10, 5.0, 1000.0)["seconds_stderr"] is None


def test_shapes_have_the_published_parameter_counts():
    """In millions of weights: 88.7, 165.9, 28.4 and 198 (here 198.3) are the paper's."""
    networks = {
        name: build_uninitialized(NetworkSpec(shape.network, shape.vocab_size, shape.shape))
        for name, shape in SHAPES.items()
    }
    millions = {name: round(count_parameters(network) / 1e6, 1) for name, network in networks.items()}
    assert millions == {
        "chars": 0.8,
        "text8-11m": 11.6,
        "text8": 88.7,
        "gpt2-small": 165.9,
        "cifar10-small": 1.7,
        "cifar10": 28.4,
        "imagenet64": 198.3,
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": "gpt5"}, "--shape must be one of chars, text8-11m, text8, .* not 'gpt5'"),
        ({"precision": "int8"}, "--precision must be one of float32, bfloat16, not 'int8'"),
        ({"objective": "sedd"}, "--objective must be one of md4, genmd4, not 'sedd'"),
        ({"optimizer": "sgd"}, "--optimizer must be one of adamw, muon, normuon, not 'sgd'"),
    ],
)
def test_settings_that_cannot_be_measured_are_errors(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(TINY, **changes)


def test_the_command_writes_what_it_prints(tmp_path):
    stem = tmp_path / "training"
    arguments = [
        "--shape",
        "chars",
        "--batch",
        "1",
        "--optimizer",
        "muon",
        "--steps",
        "2",
        "--warm-up",
        "1",
        "--json",
        "--out",
    ]
    result = CliRunner().invoke(app, ["bench", "train", *arguments, str(stem)])
    assert result.exit_code == 0, result.output
    assert stem.with_suffix(".json").read_text() == result.output
    (measured,) = json.loads(result.output)["results"]
    assert measured["parameters"] // 100_000 == 8
    rows = [line for line in stem.with_suffix(".md").read_text().splitlines() if line.startswith("|")]
    assert [cell.strip() for cell in rows[0].strip("|").split("|")] == list(BENCHMARK.columns)
