"""Planned sampling never makes a tensor over all positions and the whole vocabulary."""

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mdpipe.diffusion.denoiser import MAX_PROBABILITIES
from mdpipe.diffusion.samplers.base import Sampler
from mdpipe.diffusion.schedules.base import Linear
from tests.diffusion.samplers.denoisers import RNG, all_masks, sampler_of

VOCAB_SIZE = 50_257


class LargestTensor(TorchDispatchMode):
    """Records the number of elements of the largest result of an operation."""

    elements = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        results = function(*arguments, **(keywords or {}))
        for result in results if isinstance(results, tuple | list) else [results]:
            if isinstance(result, Tensor):
                self.elements = max(self.elements, result.numel())
        return results


class Wide:
    """A large vocabulary on two channels."""

    def __init__(self) -> None:
        self.output = torch.randn(2, VOCAB_SIZE, generator=torch.Generator().manual_seed(0))

    def __call__(self, tokens: Tensor, time: Tensor, class_labels: Tensor | None) -> Tensor:
        return torch.stack([tokens.cos(), tokens.sin()], dim=-1)

    def head(self, hidden: Tensor) -> Tensor:
        return hidden @ self.output


def largest(sampler: Sampler, batch: int, length: int) -> int:
    with LargestTensor() as seen:
        sampler(Wide(), Linear(), VOCAB_SIZE, all_masks(batch, length, VOCAB_SIZE), RNG, torch.arange(batch))
    return seen.elements


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 50])
def test_no_tensor_is_as_large_as_all_probabilities(steps):
    """Those of 4 texts of 500 tokens would take 800 MB. The bound holds even if one step unmasks everything."""
    batch, length = 4, 500
    elements = largest(sampler_of("ancestral", steps), batch, length)
    assert VOCAB_SIZE < elements <= MAX_PROBABILITIES + VOCAB_SIZE < batch * length * VOCAB_SIZE / 2


def test_plain_sampling_does_make_one():
    """Show that the other test would notice."""
    assert largest(sampler_of("ancestral_stepwise", 1), 2, 10) >= 2 * 10 * VOCAB_SIZE
