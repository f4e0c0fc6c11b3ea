"""Drawing from a trained run: how often the network is called, window by window, and with which classes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mdpipe.diffusion.rng import CounterRNG
from mdpipe.diffusion.samplers.base import build_sampler
from mdpipe.diffusion.token_sampling import TokenSampler
from mdpipe.params.sampling import SamplerConfig
from mdpipe.stages.model_io import TrainedModel, load_model
from mdpipe.stages.sampling import Samples, all_masked, sample

NOISE = CounterRNG(0, "test")
WINDOW = 32


class Overheard(nn.Module):
    """A network that records its calls."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.heard: list[tuple[Tensor, Tensor | None]] = []

    def forward(self, tokens: Tensor, time: Tensor, condition: Tensor | None) -> Any:
        self.heard.append((tokens, condition))
        return self.network(tokens, time, condition)

    def head(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.network.head(hidden)
        return logits


@pytest.fixture
def overheard(place: Path) -> Callable[[str], tuple[TrainedModel, Overheard]]:
    """A trained run, and the network in it that listens."""

    def load(run: str) -> tuple[TrainedModel, Overheard]:
        trained = load_model(run)
        network = Overheard(trained.network)
        return replace(trained, network=network), network  # type: ignore[arg-type]

    return load


Load = Callable[[str], tuple[TrainedModel, Overheard]]


def drawn_by(trained: TrainedModel, kind: str, tokens: Tensor, **settings: Any) -> Samples:
    config = SamplerConfig.parse(kind)
    sampler = build_sampler(config.model_copy(update={"steps": 4}) if hasattr(config, "steps") else config)
    return sample(trained, sampler, tokens, NOISE, token_sampler=TokenSampler(), **settings)


@pytest.mark.parametrize(("run", "length"), [("chars_md4", 32), ("subwords_genmd4", 16), ("digits", 64)])
def test_unknown_samples_are_masks_of_the_models_own_length(place: Path, run: str, length: int) -> None:
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
def test_network_calls_are_counted(overheard: Load, run: str, kind: str, fewest: int, most: int) -> None:
    """Four steps, and one more at time 0 where the schedule leaves something masked."""
    trained, network = overheard(run)
    drawn = drawn_by(trained, kind, all_masked(trained, 3))
    assert drawn.nfe == len(network.heard)
    assert fewest <= drawn.nfe <= most
    assert drawn.tokens.max() < trained.objective.vocab_size


def test_guidance_is_one_call_on_the_batch_with_its_classes_and_without(overheard: Load) -> None:
    trained, network = overheard("digits")
    classes = torch.tensor([3, 1, 4])
    drawn = drawn_by(trained, "ancestral_stepwise", all_masked(trained, 3), class_labels=classes, guidance_scale=2.0)
    assert drawn.nfe == len(network.heard)
    for tokens, condition in network.heard:
        assert condition is not None
        assert condition.tolist() == [3, 1, 4, 10, 10, 10]
        assert torch.equal(tokens[:3], tokens[3:])


def test_the_network_gets_the_classes_or_none(overheard: Load) -> None:
    trained, network = overheard("digits")
    drawn_by(trained, "ancestral_stepwise", all_masked(trained, 2), class_labels=torch.tensor([9, 0]))
    assert all(condition is not None and condition.tolist() == [9, 0] for _, condition in network.heard)
    network.heard.clear()
    drawn_by(trained, "ancestral_stepwise", all_masked(trained, 2))
    assert network.heard
    assert all(condition is None for _, condition in network.heard)


def test_a_window_of_a_long_text_begins_with_half_of_the_one_before(overheard: Load) -> None:
    """Left to right the network is shown the tokens so far: 32 for the first window, then 16 for every other."""
    trained, network = overheard("chars_ar")
    windows: list[tuple[int, int]] = []
    drawn = drawn_by(
        trained,
        "autoregressive",
        all_masked(trained, 2, 4 * WINDOW),
        on_step=lambda done, steps, _: windows.append((done, steps)),
    )
    assert windows == [(number, 7) for number in range(1, 8)]
    assert drawn.nfe == WINDOW + 6 * WINDOW // 2
    for window in range(1, 7):
        start = window * WINDOW // 2
        tokens, _ = network.heard[WINDOW + (window - 1) * WINDOW // 2]
        assert torch.equal(tokens[:, 1:], drawn.tokens[:, start : start + WINDOW // 2])


def test_what_is_given_in_a_long_text_stays(place: Path) -> None:
    trained = load_model("chars_md4")
    tokens = all_masked(trained, 2, 3 * WINDOW + 5)
    tokens[:, ::3] = torch.arange(len(tokens[0, ::3])) % 27
    drawn = drawn_by(trained, "ancestral", tokens).tokens
    assert torch.equal(drawn[:, ::3], tokens[:, ::3])
    assert drawn.max() < 27
