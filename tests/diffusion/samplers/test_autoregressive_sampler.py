"""Left to right: the distribution of a causal model, what it is shown, and the gaps that it cannot fill."""

import pytest
import torch
from torch import Tensor

from mdpipe.diffusion.samplers.baselines import Autoregressive
from mdpipe.diffusion.schedules.base import Linear
from tests.diffusion.samplers.denoisers import RNG, Mixing, all_masks
from tests.diffusion.statistical_tests import FALSE_ALARM, chi_square_chance
from tests.diffusion.tables import markov_chain

MASK = 2


class Chain:
    """`markov_chain` as a causal network: its position l reads token l - 1, or the mask where the sequence begins.

    Keeps what it is shown.
    """

    def __init__(self) -> None:
        joint = markov_chain()
        pairs = joint.sum(dim=(2, 3))
        self.p = torch.cat([pairs / pairs.sum(dim=1, keepdim=True), pairs.sum(dim=1)[None]])
        self.shown: list[Tensor] = []

    def __call__(self, tokens: Tensor, time: Tensor, class_labels: Tensor | None) -> Tensor:
        self.shown.append(tokens)
        return self.p[tokens].log()

    def head(self, hidden: Tensor) -> Tensor:
        return hidden


def sample(denoiser, start: Tensor) -> Tensor:
    return Autoregressive()(denoiser, Linear(), 2, start, RNG, torch.arange(len(start)))


def test_samples_have_the_distribution_of_the_model():
    """Chi-square of 20,000 samples over the 16 sequences of four bits."""
    counts = torch.bincount(sample(Chain(), all_masks(20_000, 4)) @ torch.tensor([8, 4, 2, 1]), minlength=16)
    assert chi_square_chance(counts, 20_000 * markov_chain()) > FALSE_ALARM


def test_a_prompt_is_continued():
    """Chi-square of the last two bits after 0, 1."""
    start = torch.tensor([0, 1, MASK, MASK]).expand(20_000, 4)
    samples = sample(Chain(), start)
    expected = markov_chain()[0, 1]
    counts = torch.bincount(samples[:, 2:] @ torch.tensor([2, 1]), minlength=4)
    assert chi_square_chance(counts, 20_000 * expected / expected.sum()) > FALSE_ALARM


def test_the_network_reads_only_the_shifted_prefix():
    denoiser = Chain()
    samples = sample(denoiser, all_masks(5, 4))
    shifted = torch.cat([all_masks(5, 1), samples[:, :-1]], dim=1)
    assert [shown.shape[1] for shown in denoiser.shown] == [1, 2, 3, 4]
    assert all(torch.equal(shown, shifted[:, : shown.shape[1]]) for shown in denoiser.shown)


def test_calls_begin_behind_the_shortest_prompt():
    """Rows that are given 3, 1 and 2 of 4 tokens: three calls; with all given, none."""
    denoiser = Mixing(2, True)
    start = torch.tensor([[1, 0, 1, MASK], [1, MASK, MASK, MASK], [0, 0, MASK, MASK]])
    sample(denoiser, start)
    assert len(denoiser.times) == 3
    sample(denoiser, torch.zeros(2, 4, dtype=torch.int64))
    assert len(denoiser.times) == 3


@pytest.mark.parametrize("start", [[MASK, 1, MASK], [0, MASK, 1], [MASK, MASK, 0]])
def test_a_gap_is_refused(start):
    with pytest.raises(ValueError, match="autoregressive sampler cannot fill a gap"):
        sample(Mixing(2, True), torch.tensor([[0, 1, MASK], start]))
