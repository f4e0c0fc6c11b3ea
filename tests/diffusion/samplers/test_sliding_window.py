"""Long sequences: the windows, the tokens that each is given, and that each has its own random numbers."""

from functools import partial

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mdpipe.diffusion.denoiser import ConditionalModel, TokenSampler
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.diffusion.samplers.base import Sampler, Start, sample_sliding_window
from mdpipe.diffusion.samplers.baselines import FirstHitting
from mdpipe.diffusion.schedules.base import Linear, Schedule
from tests.diffusion.samplers.denoisers import RNG, Independent, Labeled, Mixing, sampler_of

V = 99  # More than there are windows, so that no window is numbered like the mask.


class Numbering(Sampler[Schedule]):
    """Fills window k with tokens k, and keeps the tokens and random sources that it is called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[Tensor, CounterRNG]] = []

    def plan(self, schedule: Schedule, start: Start) -> list[None]:
        return [None]

    def step(self, model: ConditionalModel, x_t: Tensor, step: None, start: Start) -> Tensor:
        self.calls.append((x_t, start.rng))
        return x_t.where(x_t != model.mask_id, len(self.calls))


@given(length=st.integers(1, 12), window=st.integers(2, 6), overlap=st.integers(0, 5), known=st.integers(0, 11))
def test_windows_are_full_and_given_the_end_of_the_one_before(length, window, overlap, known):
    """No window resamples another one's tokens; given tokens stay."""
    overlap = min(overlap, window - 1)
    tokens, sampler = torch.full((2, length), V), Numbering()
    tokens[1, known % length] = 0
    sample = partial(sampler, Mixing(V, False), Linear(), V, examples=torch.arange(2))
    filled = sample_sliding_window(sample, tokens, RNG, window=window, overlap=overlap)
    shown = [seen for seen, _ in sampler.calls]
    assert all(seen.shape == (2, min(window, length)) for seen in shown)
    assert filled[1, known % length] == 0
    windows = filled[0]
    assert windows[0] == 1 and windows[-1] == len(shown)
    assert ((windows.diff() == 0) | (windows.diff() == 1)).all()
    for number, seen in enumerate(shown[1:], start=2):
        given_before = int((seen[0] != V).sum())
        assert (seen[0, :given_before] < number).all()
        assert given_before == overlap if number < len(shown) else given_before >= overlap
    assert len({rng for _, rng in sampler.calls}) == len(shown)


def test_windows_have_different_random_numbers():
    """From the same numbers, windows of 32 bits would be equal; from different ones, with probability 2^-32 per row."""
    sampler = sampler_of("ancestral", steps=4)
    tokens = torch.full((3, 64), 2)
    sample = partial(sampler, Independent(0.5, 0.5), Linear(), 2, examples=torch.arange(3))
    samples = sample_sliding_window(sample, tokens, RNG, window=32, overlap=0)
    assert (samples[:, :32] != samples[:, 32:]).any(dim=1).all()


def test_labels_and_token_sampler_are_passed_to_each_window():
    sampler, progress = FirstHitting(), []
    classes, tokens = torch.tensor([2, 0]), torch.full((2, 7), 3)
    sample = partial(sampler, Labeled(3), Linear(), 3, examples=torch.arange(2), class_labels=classes)
    samples = sample_sliding_window(
        sample,
        tokens,
        RNG,
        window=4,
        overlap=2,
        on_step=lambda done, of, state: progress.append((done, of, int((state == 3).sum()))),
    )
    assert torch.equal(samples, classes[:, None].expand(2, 7))
    assert progress == [(1, 3, 6), (2, 3, 2), (3, 3, 0)]
    model = (Independent(0.2, 0.3, 0.5), Linear(), 3)
    sample = partial(sampler, *model, examples=torch.arange(2), token_sampler=TokenSampler(top_k=1))
    likeliest = sample_sliding_window(sample, tokens, RNG, window=4, overlap=2)
    assert (likeliest == 2).all() and (tokens == 3).all()
