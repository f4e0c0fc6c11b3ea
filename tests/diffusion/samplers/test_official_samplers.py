"""Single steps have the probabilities of the official implementation, and so has the end (tests/fixtures/md4)."""

import pytest
import torch
from torch import Tensor

from mdpipe.diffusion.denoiser import ConditionalModel, TokenSampler
from mdpipe.diffusion.objectives.genmd4 import PerTokenSchedule
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.diffusion.samplers.ancestral import AncestralStepwise
from mdpipe.diffusion.samplers.base import Sampler, Start, TimeStep
from mdpipe.diffusion.schedules.base import Cosine, Linear, Schedule
from mdpipe.params.diffusion import LinearConfig
from mdpipe.params.sampling import AncestralStepwiseConfig
from tests.diffusion.objectives.test_official_objectives import FixtureDenoiser
from tests.diffusion.samplers.denoisers import RNG, Independent, all_masks, sampler_of
from tests.networks.official import tensors

VOCAB_SIZE, STEPS, TOP_P = 11, 16, 0.9
STORED = tensors("samplers")
SCHEDULES: dict[str, Schedule] = {"linear": Linear(), "cosine": Cosine()}
PAPER = pytest.mark.parametrize("kind", ["ancestral_stepwise", "two_stage", "ancestral"])


def mu(step: TimeStep, choice: TokenSampler) -> Tensor:
    model = ConditionalModel(FixtureDenoiser(STORED), VOCAB_SIZE, None, choice)
    with torch.no_grad():
        return model.probabilities(STORED["x"][:2], step.t)


@pytest.mark.parametrize("index", [0, 7, 15])
@pytest.mark.parametrize("time_grid", ["uniform", "cosine"])
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_transition_probabilities(schedule: str, time_grid: str, index: int) -> None:
    """Of ancestral sampling, with top-p, and of both stages of two-stage sampling, at masked positions."""
    step = AncestralStepwise(AncestralStepwiseConfig(steps=STEPS, time_grid=time_grid)).time_steps(SCHEDULES[schedule])[
        index
    ]
    masked = STORED["x"][:2] == VOCAB_SIZE
    for name, choice in (("ancestral", TokenSampler()), ("topp", TokenSampler(top_p=TOP_P))):
        found = torch.cat([step.unmask_prob * mu(step, choice), torch.full((2, 9, 1), 1 - step.unmask_prob)], dim=-1)
        expected = STORED[f"{schedule}_{time_grid}_{name}_{index}"]
        torch.testing.assert_close(found[masked].float(), expected[masked], rtol=0, atol=2e-6)
    expected = STORED[f"{schedule}_{time_grid}_mean_{index}"]
    torch.testing.assert_close(mu(step, TokenSampler())[masked].float(), expected[masked], rtol=0, atol=2e-6)
    assert step.unmask_prob == pytest.approx(STORED[f"{schedule}_{time_grid}_mean_{index}_unmask"].item(), abs=2e-6)


class AllLeft(Linear):
    """A schedule under which nearly all masks are left at time 0: 1 - alpha is at least 1 - 1e-9 at every time."""

    def alpha(self, t: Tensor) -> Tensor:
        return 1e-9 * (1 - t)

    def one_minus_alpha(self, t: Tensor) -> Tensor:
        return 1 - self.alpha(t)


@PAPER
@pytest.mark.parametrize("choice", [TokenSampler(), TokenSampler(top_p=0.5), TokenSampler(temperature=3.0)], ids=str)
def test_masks_left_at_the_end_become_the_official_tokens(kind: str, choice: TokenSampler) -> None:
    sampler = sampler_of(kind, steps=4, decode="argmax")
    denoiser = FixtureDenoiser(STORED)
    samples = sampler(denoiser, AllLeft(), VOCAB_SIZE, STORED["x"], RNG, torch.arange(4), token_sampler=choice)
    assert torch.equal(samples, STORED["decode"].long())


def left_at_zero(sampler: Sampler, count: int) -> Tensor:
    """Return how often each of two tokens comes out, of 40 % that are left masked at time 0."""
    tokens = all_masks(count, 1, 2)
    samples = sampler(
        Independent(0.3, 0.7), Linear(LinearConfig(epsilon=0.4)), 2, tokens, CounterRNG(0, "test"), torch.arange(count)
    )
    return samples.flatten().bincount(minlength=2).double() / count


@PAPER
def test_argmax_decoding_shifts_only_what_was_left(kind: str) -> None:
    """Alpha runs from 0.4 at time 1 to 0.6 at time 0, so 0.2 / 0.6 of the masks are sampled and the rest is left.

    Within five standard errors of 20,000 draws.
    """
    unmask_prob = 0.2 / 0.6
    for decode, likeliest in (("sample", 0.7), ("argmax", 0.7 * unmask_prob + 1 - unmask_prob)):
        found = left_at_zero(sampler_of(kind, steps=3, decode=decode), 20_000)
        error = (likeliest * (1 - likeliest) / 20_000) ** 0.5
        assert abs(found[1].item() - likeliest) < 5 * error


@pytest.mark.parametrize("time_grid", ["uniform", "cosine"])
@pytest.mark.parametrize("steps", [1, 7, 1000])
def test_genmd4_leaves_no_mask_to_decode(steps: int, time_grid: str) -> None:
    """Its schedules end at alpha(0) = 1, officially as well: the last step unmasks with certainty, and none follows."""
    schedule = PerTokenSchedule(3, 1.0, 1e-4)
    with torch.no_grad():
        schedule.raw.copy_(torch.tensor([-3.0, 0.0, 30.0]))
        plan = sampler_of("genmd4_ancestral", steps, time_grid).plan(
            schedule, Start(all_masks(1, 2, 3), 3, RNG, torch.arange(1))
        )
    assert len(plan) == steps
    assert plan[-1].unmask_prob.tolist() == [1, 1, 1]
