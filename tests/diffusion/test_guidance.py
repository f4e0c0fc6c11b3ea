"""Classifier-free guidance: the formula, its limits, and its use as a denoiser of samplers."""

import pytest
import torch
from torch import Tensor

from mdpipe.diffusion.denoiser import ClassifierFreeGuidance
from mdpipe.diffusion.schedules.base import Linear
from tests.diffusion.samplers.denoisers import RNG, all_masks, sampler_of

V, CLASSES = 4, 3


class Classes:
    """Logits that are random for each class and for none, whatever the tokens; counts its calls."""

    def __init__(self) -> None:
        random = torch.Generator().manual_seed(0)
        self.logits = torch.randn(CLASSES + 1, V, generator=random, dtype=torch.float64)
        self.calls = 0

    def __call__(self, tokens: Tensor, time: Tensor, class_labels: Tensor | None) -> Tensor:
        assert class_labels is not None and len(tokens) == len(time) == len(class_labels)
        self.calls += 1
        return self.logits[class_labels][:, None].expand(*tokens.shape, V)

    def head(self, hidden: Tensor) -> Tensor:
        return 3 * hidden


CLASS_LABELS = torch.tensor([0, 1, 2, 0, 1])


def logits(denoiser, class_labels: Tensor) -> Tensor:
    tokens = all_masks(len(class_labels), 2, V)
    return denoiser.head(denoiser(tokens, torch.ones(len(tokens), dtype=torch.float64), class_labels))


def test_scale_0_is_the_conditional_model_to_the_bit():
    conditional = logits(Classes(), CLASS_LABELS).log_softmax(dim=-1)
    assert torch.equal(logits(ClassifierFreeGuidance(Classes(), 0.0, CLASSES), CLASS_LABELS), conditional)


@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_a_class_counts_by_its_ratio_to_no_class(scale):
    """p(x | class) (p(x | class) / p(x))^scale, normalized."""
    with_class = logits(Classes(), CLASS_LABELS).softmax(dim=-1)
    without = logits(Classes(), torch.full_like(CLASS_LABELS, CLASSES)).softmax(dim=-1)
    expected = with_class * (with_class / without) ** scale
    guided = logits(ClassifierFreeGuidance(Classes(), scale, CLASSES), CLASS_LABELS).softmax(dim=-1)
    assert torch.allclose(guided, expected / expected.sum(dim=-1, keepdim=True), atol=1e-12)


def test_without_a_class_guidance_changes_nothing():
    none = torch.full_like(CLASS_LABELS, CLASSES)
    plain = logits(Classes(), none).softmax(dim=-1)
    assert torch.allclose(
        logits(ClassifierFreeGuidance(Classes(), 3.0, CLASSES), none).softmax(dim=-1), plain, atol=1e-12
    )


def test_the_network_runs_once_a_call():
    denoiser = Classes()
    logits(ClassifierFreeGuidance(denoiser, 1.0, CLASSES), CLASS_LABELS)
    assert denoiser.calls == 1


def test_at_scale_0_samples_are_of_the_conditional_model():
    sampler = sampler_of("ancestral", steps=4)
    start, examples, classes = all_masks(200, 3, V), torch.arange(200), torch.arange(200) % CLASSES
    plain, guided = (
        sampler(denoiser, Linear(), V, start, RNG, examples, class_labels=classes)
        for denoiser in (Classes(), ClassifierFreeGuidance(Classes(), 0.0, CLASSES))
    )
    assert torch.equal(plain, guided)


def test_guidance_without_class_labels_is_refused():
    with pytest.raises(ValueError, match="guidance needs class labels"):
        ClassifierFreeGuidance(Classes(), 1.0, CLASSES)(all_masks(1, 2, V), torch.ones(1), None)
