"""With the official implementation's weights, our networks return its outputs and gradients (tests/fixtures/md4)."""

import pytest
import torch
from torch import Tensor, nn

from mdpipe.diffusion.objectives.base import Objective
from mdpipe.diffusion.objectives.genmd4 import T_MIN, GenMD4
from mdpipe.diffusion.objectives.md4 import MD4
from mdpipe.params.diffusion import GenMD4Config, MD4Config
from mdpipe.params.networks import NetworkConfig, UNetConfig
from tests.networks import official
from tests.networks.official_losses import (
    TRANSFORMER,
    UNET,
    UVIT,
    load,
    loss_and_gradients,
    map_weights,
    sketch,
)


@pytest.fixture(scope="module")
def transformer() -> nn.Module:
    return load(TRANSFORMER, 11, (12,), map_weights(TRANSFORMER, official.transformer_weights()))


def test_transformer_logits(transformer: nn.Module) -> None:
    stored = official.tensors("transformer")
    with torch.no_grad():
        logits = transformer.head(transformer(stored["corrupted"].long(), stored["time"]))
    torch.testing.assert_close(logits, stored["logits"], rtol=0, atol=1e-5)


def losses_and_gradients(objective: Objective, network: nn.Module) -> tuple[Tensor, official.Weights]:
    """Return the mean loss and its gradient, in the official layout, in every weight and in the objective's own."""
    stored = official.tensors("transformer")
    weights = official.transformer_weights()
    weights |= {name: stored["genmd4_raw_w"] for name, _ in objective.named_parameters()}
    u = torch.cat([stored["uniforms_1"], stored["uniforms_2"]], dim=1)[:, : objective.num_mask_samples * 12]
    tokens = stored["tokens"].long()
    return loss_and_gradients(network, TRANSFORMER, objective, weights, tokens, stored["u0"], u)


def assert_gradients_equal(found: official.Weights, prefix: str, factor: float) -> None:
    """Compare gradients in every weight of the network to 1e-5 of their size."""
    expected = {k.removeprefix(prefix): v for k, v in official.tensors("transformer").items() if k.startswith(prefix)}
    assert len(expected) == 26
    for name, gradient in expected.items():
        scale = factor * gradient.norm()
        assert (sketch(found[name]) - factor * gradient).norm() < 2e-5 * scale, name


def test_md4_loss_and_gradients_of_the_transformer(transformer: nn.Module) -> None:
    stored, objective = official.tensors("transformer"), MD4(MD4Config(), 11)
    loss, gradients = losses_and_gradients(objective, transformer)
    prior = objective.add_boundary_terms(torch.zeros(1, dtype=torch.float64), 12).prior
    torch.testing.assert_close(loss - prior[0], stored["md4/loss"], rtol=1e-6, atol=0)
    assert_gradients_equal(gradients, "md4_grad/", 1)


def test_genmd4_loss_and_gradients_of_the_transformer(transformer: nn.Module) -> None:
    """The official integral over [t1, 1] is not multiplied by the length of that range, ours is."""
    stored, objective = official.tensors("transformer"), GenMD4(GenMD4Config(), 11)
    loss, gradients = losses_and_gradients(objective, transformer)
    prior = 12 * objective.schedule.epsilon * torch.tensor(11.0).double().log()
    length = 1 - T_MIN
    expected = length * stored["genmd4/loss_diff"] + stored["genmd4/loss_recon"]
    torch.testing.assert_close(loss - prior, expected, rtol=1e-6, atol=0)
    assert_gradients_equal(gradients, "genmd4_grad/", length)
    whole, part = stored["genmd4_grad_raw_w"], stored["genmd4_grad_raw_w_recon_part"]
    torch.testing.assert_close(gradients["schedule.raw"], length * (whole - part) + part, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("array", "time"), [("logits", None), ("logits_at_time_half", 0.5)])
@pytest.mark.parametrize("config", [UNET, UVIT], ids=["unet", "uvit"])
def test_image_network_logits(config: NetworkConfig, array: str, time: float | None) -> None:
    weights = map_weights(config, official.generated_weights(config.kind))
    network, stored = load(config, 8, (4, 4, 3), weights), official.tensors(config.kind)
    times = stored["time"] if time is None else torch.full((2,), time)
    with torch.no_grad():
        logits = network(stored["corrupted"].long().flatten(1), times)
    torch.testing.assert_close(logits.view_as(stored[array]), stored[array], rtol=0, atol=1e-4)


def test_untimed_unet_logits() -> None:
    weights = official.map_unet(official.without_time(official.generated_weights("unet")), 1)
    network, stored = load(UNetConfig(hidden_size=128, num_blocks=1), 8, (4, 4, 3), weights), official.tensors("unet")
    with torch.no_grad():
        logits = network(stored["corrupted"].long().flatten(1), stored["time"])
    torch.testing.assert_close(logits.view_as(stored["logits_untimed"]), stored["logits_untimed"], rtol=0, atol=1e-4)
