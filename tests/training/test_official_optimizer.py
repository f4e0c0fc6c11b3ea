"""AdamW, the learning rate's schedule and the averaged weights are those of the official code (tests/fixtures/md4)."""

import pytest
import torch
from torch import nn

from mdpipe.diffusion.objectives.md4 import MD4
from mdpipe.params import AdamWConfig
from mdpipe.params.diffusion import MD4Config
from mdpipe.training.optimizer import EMA, build_optimizers, learning_rate_at, set_learning_rate
from tests.networks.official import tensors
from tests.training.interrupted_run import SETTINGS

PAPER = SETTINGS.model_copy(
    update={
        "steps": 60,
        "warmup_steps": 10,
        "learning_rate": 3e-4,
        "optimizer": AdamWConfig(beta2=0.999),
        "ema_decay": 0.9999,
    }
)


STORED = tensors("optimizer")


def test_learning_rates_match_with_warm_up_one_step_ahead() -> None:
    """The official warm-up starts with a step of rate 0, which ours leaves out."""
    official = STORED["learning_rate"].tolist()
    rates = [learning_rate_at(step, PAPER) for step in range(PAPER.steps + 1)]
    assert rates[: PAPER.warmup_steps] == pytest.approx(official[1 : PAPER.warmup_steps + 1], rel=1e-6)
    assert rates[PAPER.warmup_steps :] == pytest.approx(official[PAPER.warmup_steps :], rel=1e-4, abs=1e-11)


def test_sixty_steps_of_adamw_and_of_the_ema_state_dicts() -> None:
    """Of twelve numbers whose gradients span ten orders of magnitude, at the official learning rates.

    Averages of the first steps are shorter than the official ones, so they are compared as of the millionth step.
    """
    module = nn.Module()
    module.weight = nn.Parameter(STORED["initial"].clone())
    optimizers = build_optimizers(module, MD4(MD4Config(), 5), PAPER)
    average = EMA(module, PAPER.ema_decay)
    for step in range(PAPER.steps):
        set_learning_rate(optimizers, STORED["learning_rate"][step].item())
        module.weight.grad = STORED["gradients"][step]
        for optimizer in optimizers:
            optimizer.step()
        average.update(1_000_000 + step)
        torch.testing.assert_close(module.weight.detach(), STORED["weights"][step], rtol=0, atol=2e-6)
        torch.testing.assert_close(average.state_dict()["weight"], STORED["average"][step], rtol=0, atol=2e-6)
