"""The head in chunks: the same costs and gradients as all at once, with few logits at a time."""

import pytest
import torch
from torch import Tensor, nn

from mdpipe.diffusion.objectives import masked
from mdpipe.diffusion.objectives.base import Objective
from mdpipe.diffusion.schedules.linear import Linear
from tests.diffusion.every import every_objective

V, L, B = 7, 6, 5
KINDS = sorted(every_objective(V, Linear()))


class Small(nn.Module):
    """A denoiser in float64, whose head notes how many logits it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(0)
        self.embedding = nn.Parameter(torch.randn(V + 1, 4, generator=random, dtype=torch.float64))
        self.weight = nn.Parameter(torch.randn(V, 4, generator=random, dtype=torch.float64))
        self.asked: list[int] = []

    def forward(self, tokens: Tensor, time: Tensor, condition: Tensor | None) -> Tensor:
        return self.embedding[tokens].cumsum(dim=1) + time[:, None, None]

    def head(self, hidden: Tensor) -> Tensor:
        self.asked.append(hidden.shape[:-1].numel() * V)
        return hidden @ self.weight.T


def gradients(objective: Objective, network: Small) -> tuple[Tensor, list[Tensor]]:
    """Losses, and the gradient of a sum that weighs each example differently."""
    random = torch.Generator().manual_seed(1)
    tokens = torch.randint(V, (B, L), generator=random)
    time = torch.rand(B, generator=random, dtype=torch.float64)
    uniforms = torch.rand(B, objective.loss_uniforms(L), generator=random, dtype=torch.float64)
    losses = objective.loss(network, tokens, time, uniforms)
    weights = torch.arange(1.0, B + 1, dtype=torch.float64)
    parameters = [*network.parameters(), *objective.parameters()]
    return losses.detach(), list(torch.autograd.grad((weights * losses).sum(), parameters))


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_change_neither_losses_nor_gradients_and_bound_the_logits(kind, monkeypatch):
    objective, network = every_objective(V, Linear())[kind].double(), Small()
    losses, expected = gradients(objective, network)
    whole = max(network.asked)
    network.asked.clear()
    limit = 3 * V
    monkeypatch.setattr(masked, "CHUNK_BYTES", limit * torch.float32.itemsize)
    in_chunks, found = gradients(objective, network)
    assert max(network.asked) <= limit < whole
    torch.testing.assert_close(in_chunks, losses, rtol=1e-12, atol=1e-12)
    for gradient, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-10, atol=1e-10)
