"""Fixtures: networks small enough to train in a moment."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mdpipe.networks.base import NetworkSpec, build_network
from mdpipe.params.networks import NetworkConfig, TransformerConfig, UNetConfig, UViTConfig

SMALL: dict[str, tuple[NetworkConfig, tuple[int, ...]]] = {
    "transformer": (TransformerConfig(num_layers=2, num_heads=2, hidden_size=16), (12,)),
    "unet": (UNetConfig(hidden_size=8, num_blocks=1), (3, 2, 2)),
    "uvit": (UViTConfig(hidden_size=8, num_blocks=1, transformer_width=8, num_layers=1, num_heads=2), (2, 2, 3)),
}


@pytest.fixture(params=sorted(SMALL))
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def build() -> Callable[..., nn.Module]:
    """Return a function that builds a small network with V = 5: `build("unet", seed=1, dropout=0.5)`."""

    def small(
        kind: str,
        *,
        shape: tuple[int, ...] | None = None,
        seed: int = 0,
        num_classes: int = 0,
        causal: bool = False,
        **changes: Any,
    ) -> nn.Module:
        config, default_shape = SMALL[kind]
        changed = config.model_validate(config.model_dump() | changes)
        return build_network(
            NetworkSpec(changed, 5, shape or default_shape, num_classes=num_classes, causal=causal), seed=seed
        )

    return small


@pytest.fixture
def perturbed(build) -> Callable[..., nn.Module]:
    """Like `build`, with random numbers added to all weights, because many are initially zero."""

    def build_perturbed(kind: str, **changes: Any) -> nn.Module:
        network, random = build(kind, **changes), torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=random))
        return network

    return build_perturbed


@pytest.fixture
def learn() -> Callable[..., list[float]]:
    """Return a function that trains to a loss below 0.1 nats per masked token and returns the loss of every step."""

    def train(network: nn.Module, data: Tensor, masked: Tensor, class_labels: Tensor | None = None) -> list[float]:
        # With Adam's default beta2 the small transformer's loss has spikes.
        optimizer = torch.optim.Adam(network.parameters(), lr=5e-3, betas=(0.9, 0.95))
        losses: list[float] = []
        while len(losses) < 400 and min(losses, default=1) >= 0.1:
            hidden = network(torch.where(masked, 5, data), torch.full((len(data),), 0.5), class_labels)
            loss = functional.cross_entropy(network.head(hidden[masked]), data[masked])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    return train


@pytest.fixture
def tokens() -> Tensor:
    """Return tokens (6, 12) int64, including the mask, 5."""
    return torch.randint(0, 6, (6, 12), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def times() -> Tensor:
    return torch.linspace(0, 1, 6, dtype=torch.float64)
