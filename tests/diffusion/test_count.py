"""How many masks there are: asked for before the denoiser runs, and read once it has all its work."""

import pytest
import torch
from torch import Tensor

from mdpipe.diffusion.count import asked_for
from mdpipe.diffusion.objectives import masked
from mdpipe.diffusion.schedules.linear import Linear
from tests.diffusion.every import every_objective

V, L, B = 7, 6, 5
WITH_MASKS = sorted(every_objective(V, Linear()).keys() - {"autoregressive"})
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


@pytest.mark.parametrize("device", DEVICES)
def test_it_is_the_number_at_the_time_of_asking_and_can_be_read_again(device):
    number = torch.tensor(41, device=device) + 1
    known = asked_for(number)
    assert known() == 42
    assert known() == 42


@pytest.mark.parametrize("kind", WITH_MASKS)
def test_every_objective_asks_first_then_runs_the_denoiser_and_then_reads(kind, monkeypatch):
    objective, happened = every_objective(V, Linear())[kind], []

    def noted(number: Tensor):
        happened.append("asked")
        known = asked_for(number)

        def read() -> int:
            happened.append("read")
            return known()

        return read

    class Denoiser:
        def __call__(self, tokens: Tensor, time: Tensor, condition: Tensor | None) -> Tensor:
            happened.append("run")
            return torch.nn.functional.one_hot(tokens, V + 1)[..., :V].to(torch.float64)

        def head(self, hidden: Tensor) -> Tensor:
            happened.append("head")
            return hidden

    monkeypatch.setattr(masked, "asked_for", noted)
    random = torch.Generator().manual_seed(1)
    tokens = torch.randint(V, (B, L), generator=random)
    time = torch.rand(B, generator=random, dtype=torch.float64)
    uniforms = torch.rand(B, objective.loss_uniforms(L), generator=random, dtype=torch.float64)
    objective.loss(Denoiser(), tokens, time, uniforms)
    draws = len(happened) // 4
    assert draws >= 1
    assert happened == ["asked", "run", "read", "head"] * draws
