"""The objectives have the values and gradients of the official implementation, in float64 (tests/fixtures/md4)."""

import pytest
import torch
from torch import Tensor, nn

from mdpipe.diffusion.objectives.genmd4 import T_MIN, GenMD4
from mdpipe.diffusion.objectives.md4 import MD4
from mdpipe.diffusion.schedules.base import Cosine, Linear, Polynomial, Schedule
from mdpipe.params.diffusion import GenMD4Config, MD4Config, PolynomialConfig
from tests.networks.official import tensors

VOCAB_SIZE, LENGTH, BATCH = 11, 9, 6
SCHEDULES: dict[str, Schedule] = {
    "linear": Linear(),
    "cosine": Cosine(),
    "poly3": Polynomial(PolynomialConfig(exponent=3.0)),
    "poly1p5": Polynomial(PolynomialConfig(exponent=1.5)),
}
STORED = tensors("losses")


class FixtureDenoiser(nn.Module):
    """logits = tanh(E[x_t] + E2[x_t one position to the left] + t c) H."""

    def __init__(self, arrays: dict[str, Tensor]) -> None:
        super().__init__()
        self.E, self.E2, self.c, self.H = (nn.Parameter(arrays[f"theta_{name}"]) for name in ("E", "E2", "c", "H"))

    def forward(self, tokens: Tensor, time: Tensor, class_labels: Tensor | None = None) -> Tensor:
        shifted = self.E2[tokens].roll(1, dims=1)
        return (self.E[tokens] + shifted + time.to(self.c.dtype)[:, None, None] * self.c).tanh()

    def head(self, hidden: Tensor) -> Tensor:
        return hidden @ self.H


@pytest.fixture
def denoiser() -> FixtureDenoiser:
    return FixtureDenoiser(STORED)


def times() -> Tensor:
    return (STORED["u0"] + torch.arange(BATCH, dtype=torch.float64) / BATCH) % 1


@pytest.mark.parametrize("timesteps", [None, 7, 1000])
@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
def test_md4_has_the_official_values_and_gradients(
    schedule: str, timesteps: int | None, denoiser: FixtureDenoiser
) -> None:
    objective = MD4(MD4Config(schedule=SCHEDULES[schedule].config, timesteps=timesteps), VOCAB_SIZE)
    bound = objective.elbo(denoiser, STORED["x"], times(), STORED["U1"])
    name = f"md4_{schedule}_{timesteps or 'continuous'}"
    loss = (bound.diffusion + bound.reconstruction).mean()
    for part, value in (("loss", loss), ("loss_diff", bound.diffusion.mean()), ("loss_recon", bound.reconstruction[0])):
        torch.testing.assert_close(value.detach(), STORED[f"{name}/{part}"], rtol=1e-11, atol=0)
    loss.backward()
    for weight in ("E", "E2", "c", "H"):
        expected = STORED[f"{name}/g_{weight}"]
        torch.testing.assert_close(getattr(denoiser, weight).grad, expected, rtol=1e-9, atol=1e-11)


def test_genmd4_has_the_official_values_and_gradients(denoiser: FixtureDenoiser) -> None:
    """Ours multiplies the integral over [t1, 1] by the length of that range, which the official one leaves out."""
    objective, length = GenMD4(GenMD4Config(), VOCAB_SIZE).double(), 1 - T_MIN
    with torch.no_grad():
        objective.schedule.raw.copy_(STORED["raw"])
    draws = [objective.elbo(denoiser, STORED["x"], times(), STORED[name]) for name in ("U1", "U2")]
    diffusion = torch.stack([draw.diffusion for draw in draws]).mean()
    torch.testing.assert_close(diffusion / length, STORED["gen/loss_diff"], rtol=1e-11, atol=0)
    torch.testing.assert_close(draws[0].reconstruction.mean(), STORED["gen/loss_recon"], rtol=1e-11, atol=0)
    u = torch.cat([STORED["U1"], STORED["U2"]], dim=1)
    objective.loss(denoiser, STORED["x"], times(), u).mean().backward()
    for weight in ("E", "E2", "c", "H", "raw"):
        gradient = (objective.schedule.raw if weight == "raw" else getattr(denoiser, weight)).grad
        whole, part = STORED[f"gen/loss/g_{weight}"], STORED[f"gen/loss_recon/g_{weight}"]
        torch.testing.assert_close(gradient, length * (whole - part) + part, rtol=1e-9, atol=1e-11)
