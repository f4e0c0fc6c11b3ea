"""How many masks there are, said beforehand: what the denoiser then sees, and the same loss to the bit."""

import pytest
import torch
from torch import Tensor, nn

from mdpipe.diffusion.objectives.md4 import MD4
from mdpipe.diffusion.schedules.linear import Linear
from tests.diffusion.every import every_objective

V, L, B = 7, 6, 5
OBJECTIVES = {**every_objective(V, Linear()), "md4 with three masks": MD4(Linear(), V, masks=3)}


class Seen(nn.Module):
    """A small denoiser that notes how many masks it was shown in each call."""

    def __init__(self) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(0)
        self.embedding = nn.Parameter(torch.randn(V + 1, V, generator=random, dtype=torch.float64))
        self.masks: list[int] = []

    def forward(self, tokens: Tensor, time: Tensor, condition: Tensor | None) -> Tensor:
        self.masks.append(int((tokens == V).sum()))
        return self.embedding[tokens].cumsum(dim=1) * (1 + time[:, None, None])

    def head(self, hidden: Tensor) -> Tensor:
        return hidden


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_known_counts_are_those_seen_and_change_no_bit(name):
    objective, network = OBJECTIVES[name], Seen()
    random = torch.Generator().manual_seed(1)
    tokens = torch.randint(V, (B, L), generator=random)
    time = torch.rand(B, generator=random, dtype=torch.float64)
    uniforms = torch.rand(B, objective.loss_uniforms(L), generator=random, dtype=torch.float64)
    counts = objective.mask_counts(time, uniforms)
    if counts is None:
        pytest.skip("it does not know beforehand")
    losses = objective.loss(network, tokens, time, uniforms)
    gradient = torch.autograd.grad(losses.sum(), network.embedding)[0]
    assert network.masks == counts.tolist()
    again = objective.loss(network, tokens, time, uniforms, counts=counts.tolist())
    assert torch.equal(again, losses)
    assert torch.equal(torch.autograd.grad(again.sum(), network.embedding)[0], gradient)


def test_those_of_md4s_family_know():
    knowing = {name for name, objective in OBJECTIVES.items() if _counts(objective) is not None}
    assert knowing == {"md4", "md4 in steps", "md4 with three masks", "maskgit", "d3pm"}


def _counts(objective):
    time = torch.zeros(B, dtype=torch.float64)
    return objective.mask_counts(time, torch.zeros(B, objective.loss_uniforms(L), dtype=torch.float64))
