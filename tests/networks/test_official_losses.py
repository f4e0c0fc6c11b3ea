"""Our networks have the official losses and gradients, also without time and with classes (tests/fixtures/md4)."""

import re
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from mdpipe.diffusion.objectives.md4 import MD4
from mdpipe.params.diffusion import CosineConfig, LinearConfig, MD4Config, ScheduleConfig
from mdpipe.params.networks import NetworkConfig
from tests.networks import official
from tests.networks.official_losses import (
    MAX_STORED,
    TRANSFORMER,
    UNET,
    UVIT,
    load,
    loss_and_gradients,
    map_weights,
    sketch,
    stored_gradients,
)

STORED = official.tensors("networks")
WITHOUT_GRADIENT = re.compile(r"/(key|wk)/bias$")
"""Biases of keys: each adds the same number to all scores of a query, which the softmax ignores."""


@dataclass(frozen=True)
class Case:
    """An official network in networks.npz.

    Attributes:
        config: the configuration of ours.
        num_classes: its number of classes.
        max_stored: largest number of elements of a gradient that is stored itself, not as a sketch.
        tolerance: largest error of a weight's gradient, as a fraction of it.
    """

    config: NetworkConfig
    num_classes: int = 0
    max_stored: int = MAX_STORED
    tolerance: float = 2e-5

    @property
    def shape(self) -> tuple[int, ...]:
        return (12,) if self.config.kind == "transformer" else (4, 4, 3)

    @property
    def vocab_size(self) -> int:
        return 11 if self.config.kind == "transformer" else 8

    @property
    def class_labels(self) -> Tensor | None:
        """One label per example; the last class is "no class"."""
        labels = STORED["text/labels" if self.config.kind == "transformer" else "images/labels"]
        return labels.long() if self.num_classes else None

    @property
    def loss_inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens, the number that determines the times, and the uniforms of the masks."""
        if self.config.kind == "transformer":
            text = official.tensors("transformer")
            return text["tokens"].long(), text["u0"], text["uniforms_1"]
        return (
            STORED["images/tokens"].long().flatten(1),
            STORED["images/u0"],
            STORED["images/uniforms"].double().flatten(1),
        )


def untimed(config: NetworkConfig) -> NetworkConfig:
    return config.model_copy(update={"time_conditioning": False})


# Angles are 1000 t times a frequency, and both implementations round frequencies to float32, each in its own way. The
# angles differ by up to 4e-5, which single gradients of the larger networks show. In float64 with the official
# frequencies, all gradients agree to 8e-8.
CASES = {
    "unet": Case(UNET),
    "uvit": Case(UVIT, tolerance=1e-4),
    "uvit_untimed": Case(untimed(UVIT), max_stored=0),
    "unet_classes": Case(UNET, num_classes=4, max_stored=0, tolerance=1e-4),
    "uvit_classes": Case(UVIT, num_classes=4, max_stored=0, tolerance=1e-4),
    "transformer_untimed": Case(untimed(TRANSFORMER)),
    "transformer_classes": Case(TRANSFORMER, num_classes=4),
}
WITH_CLASSES = [name for name, case in CASES.items() if case.num_classes]
IMAGES = [name for name, case in CASES.items() if case.config.kind != "transformer"]


def logits(case: Case, config: NetworkConfig, weights: official.Weights) -> Tensor:
    """Return the logits of the stored inputs."""
    inputs = official.tensors(config.kind)
    network = load(config, case.vocab_size, case.shape, map_weights(config, weights), case.num_classes)
    with torch.no_grad():
        return network.head(network(inputs["corrupted"].long().flatten(1), inputs["time"], case.class_labels))


@pytest.mark.parametrize("name", [name for name in CASES if f"{name}/logits" in STORED])
def test_logits_without_time_or_with_classes(name: str) -> None:
    case, expected = CASES[name], STORED[f"{name}/logits"]
    found = logits(case, case.config, official.generated_weights(name))
    torch.testing.assert_close(found.view_as(expected), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", WITH_CLASSES)
def test_logits_with_classes_but_without_time(name: str) -> None:
    """The class vector itself is the conditioning vector then."""
    case, expected = CASES[name], STORED[f"{name}/logits_untimed"]
    found = logits(case, untimed(case.config), official.without_time(official.generated_weights(name)))
    torch.testing.assert_close(found.view_as(expected), expected, rtol=0, atol=1e-4)


def loss_and_gradients_of(name: str, schedule: ScheduleConfig) -> tuple[Tensor, Tensor, official.Weights]:
    """Return the official parts (diffusion, reconstruction) of the loss, and its gradients."""
    case, weights = CASES[name], official.generated_weights(name)
    config, objective = case.config, MD4(MD4Config(schedule=schedule), case.vocab_size)
    network = load(config, case.vocab_size, case.shape, map_weights(config, weights), case.num_classes)
    inputs = case.loss_inputs
    loss, gradients = loss_and_gradients(network, config, objective, weights, *inputs, case.class_labels)
    ends = objective.add_boundary_terms(torch.zeros(1, dtype=torch.float64), inputs[0].shape[1])
    return loss - ends.total[0], ends.reconstruction[0], gradients


def assert_losses_equal(diffusion: Tensor, reconstruction: Tensor, prefix: str) -> None:
    """Compare with the official loss, which leaves out the prior."""
    torch.testing.assert_close(diffusion + reconstruction, STORED[f"{prefix}/loss"], rtol=1e-6, atol=0)
    torch.testing.assert_close(diffusion, STORED[f"{prefix}/loss_diff"], rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", CASES)
def test_loss_and_every_gradient(name: str) -> None:
    """The whole gradient agrees to 2e-5 of its size."""
    diffusion, reconstruction, gradients = loss_and_gradients_of(name, LinearConfig())
    assert_losses_equal(diffusion, reconstruction, name)
    torch.testing.assert_close(reconstruction, STORED[f"{name}/loss_recon"], rtol=1e-6, atol=0)
    max_stored, tolerance = CASES[name].max_stored, CASES[name].tolerance
    expected = stored_gradients(name, max_stored)
    found = {path: sketch(gradient, max_stored).flatten() for path, gradient in gradients.items()}
    assert found.keys() == expected.keys()
    for path, gradient in expected.items():
        if WITHOUT_GRADIENT.search(path):
            assert max(gradient.abs().max(), found[path].abs().max()) < 5e-6, path
        else:
            assert (found[path] - gradient).norm() < tolerance * gradient.norm(), path
    whole = torch.cat([expected[path] for path in found])
    assert (torch.cat(list(found.values())) - whole).norm() < 2e-5 * whole.norm()


@pytest.mark.parametrize("name", IMAGES)
def test_loss_under_the_cosine_schedule(name: str) -> None:
    diffusion, reconstruction, _ = loss_and_gradients_of(name, CosineConfig())
    assert_losses_equal(diffusion, reconstruction, f"{name}/cosine")
