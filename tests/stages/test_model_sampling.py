"""Sampling from a trained model: how often the network is called, window by window, and with which classes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mdpipe.diffusion.rng import CounterRNG
from mdpipe.params.sampling import SampleConfig, SamplerConfig
from mdpipe.pipeline.model_io import TrainedModel, load_model
from mdpipe.pipeline.sampling import Samples, all_masked, sample

RNG = CounterRNG(0, "test")
WINDOW = 32


class RecordingNetwork(nn.Module):
    """A network that records its calls."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.calls: list[tuple[Tensor, Tensor | None]] = []

    def forward(self, tokens: Tensor, time: Tensor, condition: Tensor | None) -> Any:
        self.calls.append((tokens, condition))
        return self.network(tokens, time, condition)

    def head(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.network.head(hidden)
        return logits


@pytest.fixture
def recording_model(place: Path) -> Callable[[str], tuple[TrainedModel, RecordingNetwork]]:
    """Return a trained model, and its network, which records its calls."""

    def load(run: str) -> tuple[TrainedModel, RecordingNetwork]:
        trained = load_model(run)
        network = RecordingNetwork(trained.network)
        return replace(trained, network=network), network  # type: ignore[arg-type]

    return load


Load = Callable[[str], tuple[TrainedModel, RecordingNetwork]]


def run_sampler(
    trained: TrainedModel, kind: str, tokens: Tensor, guidance_scale: float | None = None, **settings: Any
) -> Samples:
    sampler = SamplerConfig.parse(kind)
    if hasattr(sampler, "steps"):
        sampler = sampler.model_copy(update={"steps": 4})
    return sample(trained, SampleConfig(sampler=sampler, guidance_scale=guidance_scale), tokens, RNG, **settings)


@pytest.mark.parametrize(("run", "length"), [("chars_md4", 32), ("subwords_genmd4", 16), ("digits", 64)])
def test_all_masked_samples_have_the_models_own_length(place: Path, run: str, length: int) -> None:
    trained = load_model(run)
    assert torch.equal(all_masked(trained, 3), torch.full((3, length), trained.objective.vocab_size))
    assert all_masked(trained, 2, 5).shape == (2, 5)


@pytest.mark.parametrize(
    ("run", "kind", "fewest", "most"),
    [
        ("chars_md4", "ancestral_stepwise", 4, 5),
        ("chars_md4", "ancestral", 1, 5),
        ("chars_md4", "first_hitting", WINDOW, WINDOW),
        ("chars_ar", "autoregressive", WINDOW, WINDOW),
        ("subwords_genmd4", "genmd4_ancestral", 4, 5),
    ],
)
def test_network_calls_are_counted(recording_model: Load, run: str, kind: str, fewest: int, most: int) -> None:
    """Four steps, and one more at time 0 where the schedule leaves something masked."""
    trained, network = recording_model(run)
    samples = run_sampler(trained, kind, all_masked(trained, 3))
    assert samples.nfe == len(network.calls)
    assert fewest <= samples.nfe <= most
    assert samples.tokens.max() < trained.objective.vocab_size


def test_guidance_is_one_call_with_and_without_class(recording_model: Load) -> None:
    trained, network = recording_model("digits")
    classes = torch.tensor([3, 1, 4])
    samples = run_sampler(
        trained, "ancestral_stepwise", all_masked(trained, 3), class_labels=classes, guidance_scale=2.0
    )
    assert samples.nfe == len(network.calls)
    for tokens, condition in network.calls:
        assert condition is not None
        assert condition.tolist() == [3, 1, 4, 10, 10, 10]
        assert torch.equal(tokens[:3], tokens[3:])


def test_the_network_gets_the_classes_or_none(recording_model: Load) -> None:
    trained, network = recording_model("digits")
    run_sampler(trained, "ancestral_stepwise", all_masked(trained, 2), class_labels=torch.tensor([9, 0]))
    assert all(condition is not None and condition.tolist() == [9, 0] for _, condition in network.calls)
    network.calls.clear()
    run_sampler(trained, "ancestral_stepwise", all_masked(trained, 2))
    assert network.calls
    assert all(condition is None for _, condition in network.calls)


def test_a_window_begins_with_half_of_the_one_before(recording_model: Load) -> None:
    """Left to right the network is shown the tokens so far: 32 for the first window, then 16 for every other."""
    trained, network = recording_model("chars_ar")
    windows: list[tuple[int, int]] = []
    samples = run_sampler(
        trained,
        "autoregressive",
        all_masked(trained, 2, 4 * WINDOW),
        on_step=lambda done, steps, _: windows.append((done, steps)),
    )
    assert windows == [(number, 7) for number in range(1, 8)]
    assert samples.nfe == WINDOW + 6 * WINDOW // 2
    for window in range(1, 7):
        start = window * WINDOW // 2
        tokens, _ = network.calls[WINDOW + (window - 1) * WINDOW // 2]
        assert torch.equal(tokens[:, 1:], samples.tokens[:, start : start + WINDOW // 2])


def test_what_is_given_in_a_long_text_stays(place: Path) -> None:
    trained = load_model("chars_md4")
    tokens = all_masked(trained, 2, 3 * WINDOW + 5)
    tokens[:, ::3] = torch.arange(len(tokens[0, ::3])) % 27
    samples = run_sampler(trained, "ancestral", tokens).tokens
    assert torch.equal(samples[:, ::3], tokens[:, ::3])
    assert samples.max() < 27
