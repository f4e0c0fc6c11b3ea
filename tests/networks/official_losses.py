"""Compute losses and gradients of our networks with the official implementation's weights, in its names and layouts."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from mdpipe.diffusion.objectives.base import Objective
from mdpipe.networks.base import NetworkSpec, build_network
from mdpipe.params.networks import NetworkConfig, TransformerConfig, UNetConfig, UViTConfig
from mdpipe.training.loop import LossModule
from tests.networks import official
from tests.networks.official import Weights

TRANSFORMER = TransformerConfig(num_layers=2, num_heads=2, hidden_size=32, time_conditioning=True)
UNET = UNetConfig(hidden_size=128, num_blocks=1, time_conditioning=True)
UVIT = UViTConfig(
    hidden_size=128, num_blocks=1, transformer_width=48, num_layers=2, num_heads=3, time_conditioning=True
)
MAX_STORED = 400
"""Largest number of elements of a gradient that is stored itself; of a larger one it is a sketch."""


def load(
    config: NetworkConfig, vocab_size: int, shape: tuple[int, ...], weights: Weights, num_classes: int = 0
) -> nn.Module:
    """Build a network with exactly these weights."""
    network = build_network(NetworkSpec(config, vocab_size, shape, num_classes=num_classes), seed=0)
    network.load_state_dict({name: weight.contiguous() for name, weight in weights.items()})
    return network


def map_weights(config: NetworkConfig, weights: Weights) -> Weights:
    """Map weights of an official network to the names of ours, which has this configuration."""
    if config.kind == "transformer":
        return official.map_transformer(weights, TRANSFORMER.num_heads)
    if config.kind == "unet":
        return official.map_unet(weights, UNET.num_blocks)
    return official.map_uvit(weights, UVIT.num_blocks, UVIT.num_layers)


def loss_and_gradients(
    network: nn.Module,
    config: NetworkConfig,
    objective: Objective,
    weights: Weights,
    tokens: Tensor,
    u0: Tensor,
    u: Tensor,
    class_labels: Tensor | None = None,
) -> tuple[Tensor, Weights]:
    """Return the mean loss and its gradient in every weight of `weights`, by the weights' names.

    Names with the prefix `schedule.` belong to the objective, and all others to the network.

    Args:
        network: Ours; `weights` replace its weights.
        config: Its configuration.
        objective: The same holds for its weights.
        weights: In the official names and layouts.
        tokens: (B, L) int64.
        u0: () float64, from which the B times follow.
        u: (B, num_mask_samples * L) float64.
        class_labels: (B,) int64, or None.
    """
    weights = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
    own = {name: weight for name, weight in weights.items() if name.startswith("schedule.")}
    mapped = map_weights(config, {name: weight for name, weight in weights.items() if name not in own})
    parameters = {f"network.{name}": weight for name, weight in mapped.items()}
    parameters |= {f"objective.{name}": weight for name, weight in own.items()}
    times = (u0 + torch.arange(len(tokens), dtype=torch.float64) / len(tokens)) % 1
    arguments = (tokens, times, u, class_labels, None)
    loss = functional_call(LossModule(network, objective), parameters, arguments).mean()
    gradients = torch.autograd.grad(loss, list(weights.values()))
    return loss.detach(), dict(zip(weights, gradients, strict=True))


def sketch(gradient: Tensor, max_stored: int = MAX_STORED) -> Tensor:
    """Return a large gradient's norm and three weighted sums in place of itself, as the fixtures have them."""
    flat = gradient.double().flatten()
    if flat.numel() <= max_stored:
        return gradient.double()
    index = torch.arange(flat.numel(), dtype=torch.float64)
    weights = (torch.ones_like(index), index.cos(), (0.1 * index**2).cos())
    return torch.stack([flat.norm(), *(flat @ weight for weight in weights)])


def stored_gradients(name: str, max_stored: int) -> Weights:
    """Return the gradients, or their sketches, of a network in networks.npz, by Flax paths."""
    _, shapes = official.describe_weights(name)
    sizes = {path: int(np.prod(shape)) for path, shape in sorted(shapes.items())}
    lengths = [size if size <= max_stored else 4 for size in sizes.values()]
    parts = official.tensors("networks")[f"{name}/gradients"].split(lengths)
    return dict(zip(sizes, parts, strict=True))
