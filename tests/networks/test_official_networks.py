"""With the official implementation's weights, our networks return its outputs and gradients (tests/fixtures/md4)."""

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from mdpipe.diffusion.objectives.base import Objective
from mdpipe.diffusion.objectives.genmd4 import T_MIN, GenMD4
from mdpipe.diffusion.objectives.md4 import MD4
from mdpipe.networks.base import build_network
from mdpipe.params.diffusion import GenMD4Config, MD4Config
from mdpipe.params.networks import NetworkConfig, TransformerConfig, UNetConfig, UViTConfig
from mdpipe.training.loop import LossModule
from tests.networks import official

TRANSFORMER = TransformerConfig(num_layers=2, num_heads=2, hidden_size=32, time_conditioning=True)
UNET = UNetConfig(hidden_size=128, num_blocks=1, time_conditioning=True)
UVIT = UViTConfig(
    hidden_size=128, num_blocks=1, transformer_width=48, num_layers=2, num_heads=3, time_conditioning=True
)


def load(config: NetworkConfig, vocab_size: int, shape: tuple[int, ...], weights: official.Weights) -> nn.Module:
    """Build a network with exactly these weights."""
    network = build_network(config, vocab_size, shape, seed=0)
    network.load_state_dict({name: weight.contiguous() for name, weight in weights.items()})
    return network


@pytest.fixture(scope="module")
def transformer() -> nn.Module:
    return load(TRANSFORMER, 11, (12,), official.map_transformer(official.transformer_weights(), 2))


def test_transformer_logits(transformer: nn.Module) -> None:
    stored = official.tensors("transformer")
    with torch.no_grad():
        logits = transformer.head(transformer(stored["corrupted"].long(), stored["time"]))
    torch.testing.assert_close(logits, stored["logits"], rtol=0, atol=1e-5)


def losses_and_gradients(objective: Objective, network: nn.Module) -> tuple[Tensor, official.Weights]:
    """Return the mean loss and its gradient, in the official layout, in every weight and in the objective's own."""
    stored = official.tensors("transformer")
    weights = {name: weight.requires_grad_() for name, weight in official.transformer_weights().items()}
    own = {name: stored["genmd4_raw_w"].requires_grad_() for name, _ in objective.named_parameters()}
    parameters = {f"network.{name}": weight for name, weight in official.map_transformer(weights, 2).items()}
    parameters |= {f"objective.{name}": weight for name, weight in own.items()}
    times = (stored["u0"] + torch.arange(4, dtype=torch.float64) / 4) % 1
    uniforms = torch.cat([stored["uniforms_1"], stored["uniforms_2"]], dim=1)[:, : objective.num_mask_samples * 12]
    arguments = (stored["tokens"].long(), times, uniforms, None, None)
    loss = functional_call(LossModule(network, objective), parameters, arguments).mean()
    loss.backward()
    return loss.detach(), {name: weight.grad for name, weight in (weights | own).items() if weight.grad is not None}


def sketch(gradient: Tensor) -> Tensor:
    """Return a large gradient's norm and three sums in place of itself, as the fixture has them."""
    flat = gradient.double().flatten()
    if flat.numel() <= 400:
        return gradient.double()
    index = torch.arange(flat.numel(), dtype=torch.float64)
    weights = (torch.ones_like(index), index.cos(), (0.1 * index**2).cos())
    return torch.stack([flat.norm(), *(flat @ weight for weight in weights)])


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
    weights = official.image_weights(config.kind)
    mapped = official.map_unet(weights, 1) if config is UNET else official.map_uvit(weights, 1, 2)
    network, stored = load(config, 8, (4, 4, 3), mapped), official.tensors(config.kind)
    times = stored["time"] if time is None else torch.full((2,), time)
    with torch.no_grad():
        logits = network(stored["corrupted"].long().flatten(1), times)
    torch.testing.assert_close(logits.view_as(stored[array]), stored[array], rtol=0, atol=1e-4)


def test_untimed_unet_logits() -> None:
    weights = official.map_unet(official.without_time(official.image_weights("unet")), 1)
    network, stored = load(UNetConfig(hidden_size=128, num_blocks=1), 8, (4, 4, 3), weights), official.tensors("unet")
    with torch.no_grad():
        logits = network(stored["corrupted"].long().flatten(1), stored["time"])
    torch.testing.assert_close(logits.view_as(stored["logits_untimed"]), stored["logits_untimed"], rtol=0, atol=1e-4)
