"""Guidance: the formula, its two ends, and that samplers take it for a denoiser."""

import pytest
import torch
from torch import Tensor

from mdpipe.diffusion.denoiser import ClassifierFreeGuidance
from mdpipe.diffusion.samplers.build import build_sampler
from mdpipe.diffusion.schedules.linear import Linear
from tests.diffusion.samplers.denoisers import NOISE, masks

V, CLASSES = 4, 3


class Classes:
    """Logits that are random for each class and for none, whatever the tokens; counts its calls."""

    def __init__(self) -> None:
        random = torch.Generator().manual_seed(0)
        self.logits = torch.randn(CLASSES + 1, V, generator=random, dtype=torch.float64)
        self.calls = 0

    def __call__(self, tokens: Tensor, time: Tensor, condition: Tensor | None) -> Tensor:
        assert condition is not None and len(tokens) == len(time) == len(condition)
        self.calls += 1
        return self.logits[condition][:, None].expand(*tokens.shape, V)

    def head(self, hidden: Tensor) -> Tensor:
        return 3 * hidden


CONDITION = torch.tensor([0, 1, 2, 0, 1])


def logits(denoiser, condition: Tensor) -> Tensor:
    tokens = masks(len(condition), 2, V)
    return denoiser.head(denoiser(tokens, torch.ones(len(tokens), dtype=torch.float64), condition))


def test_scale_0_is_the_conditional_model_to_the_bit():
    conditional = logits(Classes(), CONDITION).log_softmax(dim=-1)
    assert torch.equal(logits(ClassifierFreeGuidance(Classes(), 0.0, CLASSES), CONDITION), conditional)


@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_a_class_counts_by_its_ratio_to_no_class(scale):
    """p(x | class) (p(x | class) / p(x))^scale, normalised."""
    with_class = logits(Classes(), CONDITION).softmax(dim=-1)
    without = logits(Classes(), torch.full_like(CONDITION, CLASSES)).softmax(dim=-1)
    expected = with_class * (with_class / without) ** scale
    guided = logits(ClassifierFreeGuidance(Classes(), scale, CLASSES), CONDITION).softmax(dim=-1)
    assert torch.allclose(guided, expected / expected.sum(dim=-1, keepdim=True), atol=1e-12)


def test_without_a_class_guidance_changes_nothing():
    none = torch.full_like(CONDITION, CLASSES)
    plain = logits(Classes(), none).softmax(dim=-1)
    assert torch.allclose(
        logits(ClassifierFreeGuidance(Classes(), 3.0, CLASSES), none).softmax(dim=-1), plain, atol=1e-12
    )


def test_the_network_runs_once_a_call():
    denoiser = Classes()
    logits(ClassifierFreeGuidance(denoiser, 1.0, CLASSES), CONDITION)
    assert denoiser.calls == 1


def test_at_scale_0_the_samples_are_those_of_the_conditional_model():
    sampler = build_sampler("reveal_first", steps=4, grid="uniform")
    start, examples, classes = masks(200, 3, V), torch.arange(200), torch.arange(200) % CLASSES
    plain, guided = (
        sampler(denoiser, Linear(), V, start, NOISE, examples, class_labels=classes)
        for denoiser in (Classes(), ClassifierFreeGuidance(Classes(), 0.0, CLASSES))
    )
    assert torch.equal(plain, guided)


def test_no_class_and_a_negative_scale_are_refused():
    with pytest.raises(ValueError, match=r"sample.guidance must be at least 0, not -1"):
        ClassifierFreeGuidance(Classes(), -1, CLASSES)
    with pytest.raises(ValueError, match=r"sample.guidance needs classes"):
        ClassifierFreeGuidance(Classes(), 1.0, CLASSES)(masks(1, 2, V), torch.ones(1), None)
