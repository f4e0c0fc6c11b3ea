"""Networks small enough to be trained in a moment."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mdpipe.networks.build import build_network

SMALL: dict[str, dict[str, Any]] = {
    "transformer": {"vocabulary": 5, "shape": (12,), "layers": 2, "heads": 2, "width": 16},
    "unet": {"vocabulary": 5, "shape": (3, 2, 2), "blocks": 1, "width": 8},
    "uvit": {
        "vocabulary": 5,
        "shape": (2, 2, 3),
        "blocks": 1,
        "width": 8,
        "middle_width": 8,
        "layers": 1,
        "heads": 2,
    },
}


@pytest.fixture(params=sorted(SMALL))
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def build() -> Callable[..., nn.Module]:
    """build("unet", seed=1, dropout=0.5): a small network with initial weights."""

    def small(kind: str, **settings: Any) -> nn.Module:
        return build_network(kind, **{"seed": 0, "time_conditioning": False, "dropout": 0.0, **SMALL[kind], **settings})

    return small


@pytest.fixture
def shaken(build) -> Callable[..., nn.Module]:
    """The same with random numbers added to all weights, so that none is zero as at the start."""

    def small(kind: str, **settings: Any) -> nn.Module:
        network, random = build(kind, **settings), torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=random))
        return network

    return small


@pytest.fixture
def learn() -> Callable[..., list[float]]:
    """learn(network, data, hidden): train until a hidden token costs under 0.1 nat; the cost at every step."""

    def until_known(network: nn.Module, data: Tensor, hidden: Tensor, condition: Tensor | None = None) -> list[float]:
        # The small transformer's loss leaps now and then under Adam's usual, longer memory of squares.
        optimizer = torch.optim.Adam(network.parameters(), lr=5e-3, betas=(0.9, 0.95))
        losses: list[float] = []
        while len(losses) < 400 and min(losses, default=1) >= 0.1:
            states = network(torch.where(hidden, 5, data), torch.full((len(data),), 0.5), condition)
            loss = functional.cross_entropy(network.head(states[hidden]), data[hidden])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    return until_known


@pytest.fixture
def tokens() -> Tensor:
    """(6, 12) int64, the mask 5 included."""
    return torch.randint(0, 6, (6, 12), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def times() -> Tensor:
    return torch.linspace(0, 1, 6, dtype=torch.float64)
