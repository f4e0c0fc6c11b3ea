"""Sampling of tokens: exact categorical draws, and what temperature, top-k and top-p keep."""

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from mdpipe.diffusion.denoiser import TokenSampler, sample_categorical

ROUNDING = 1e-12

# Few different values, so that ties are common.
logits = st.lists(
    st.one_of(st.integers(-2, 2).map(float), st.floats(-20, 20), st.just(-math.inf)), min_size=1, max_size=8
).filter(lambda row: max(row) > -math.inf)
temperatures = st.floats(0.05, 20)


def softmax(row: list[float], temperature: float = 1.0) -> Tensor:
    return torch.softmax(torch.tensor(row, dtype=torch.float64) / temperature, dim=0)


@given(row=logits)
def test_by_default_it_is_the_softmax(row):
    assert torch.allclose(
        TokenSampler().probabilities(torch.tensor(row)), softmax(torch.tensor(row).tolist()), atol=1e-15
    )


@given(row=logits, temperature=temperatures)
def test_the_temperature_divides_the_logits(row, temperature):
    kept = TokenSampler(temperature).probabilities(torch.tensor(row, dtype=torch.float64))
    assert torch.allclose(kept, softmax(row, temperature), atol=ROUNDING)


def test_tiny_temperature_is_argmax_without_overflow():
    kept = TokenSampler(1e-300).probabilities(torch.tensor([300.0, 299.0, -300.0]))
    assert kept.tolist() == [1, 0, 0]


@given(row=logits, temperature=temperatures, top_k=st.integers(1, 9))
def test_top_k_keeps_the_k_most_probable_in_proportion(row, temperature, top_k):
    p = softmax(row, temperature)
    kept = TokenSampler(temperature, top_k).probabilities(torch.tensor(row, dtype=torch.float64))
    first = sorted(range(len(row)), key=lambda token: (-p[token].item(), token))[:top_k]
    expected = torch.zeros_like(p)
    expected[first] = p[first] / p[first].sum()
    assert torch.allclose(kept, expected, atol=ROUNDING)


@given(row=logits, temperature=temperatures, top_p=st.floats(0.01, 1), top_k=st.none() | st.integers(1, 9))
def test_top_p_keeps_the_smallest_set_that_reaches_p(row, temperature, top_p, top_k):
    """Its mass reaches p, and without its least token it does not; nothing outside is more probable than it."""
    whole = TokenSampler(temperature, top_k).probabilities(torch.tensor(row, dtype=torch.float64))
    kept = TokenSampler(temperature, top_k, top_p).probabilities(torch.tensor(row, dtype=torch.float64))
    inside = kept > 0
    mass, least = whole[inside].sum(), whole[inside].min()
    assert mass >= top_p - ROUNDING
    assert mass - least < top_p + ROUNDING
    assert (whole[~inside] <= least).all()
    assert torch.allclose(kept[inside], whole[inside] / mass, atol=ROUNDING)
    assert kept.sum().item() == pytest.approx(1, abs=ROUNDING)


def test_top_p_keeps_the_token_that_crosses_p():
    """0.5 falls short of 0.7 and 0.5 + 0.3 goes beyond."""
    kept = TokenSampler(top_p=0.7).probabilities(torch.tensor([0.3, 0.2, 0.5], dtype=torch.float64).log())
    assert torch.allclose(kept, torch.tensor([0.375, 0, 0.625], dtype=torch.float64))


def test_top_p_is_a_fraction_of_what_top_k_has_left():
    """Of 0.5, 0.3 and 0.2 the first two are left; 0.6 of their 0.8 is 0.48, which the first reaches by itself."""
    kept = TokenSampler(top_k=2, top_p=0.6).probabilities(torch.tensor([0.3, 0.2, 0.5], dtype=torch.float64).log())
    assert kept.tolist() == [0, 0, 1]


def test_of_equally_probable_tokens_those_of_smaller_index_stay():
    """A vocabulary large enough for a sort that is not stable to show."""
    for choice in (TokenSampler(top_k=100), TokenSampler(top_p=0.0999)):
        kept = choice.probabilities(torch.zeros(2, 1000))
        assert torch.allclose(kept[:, :100], torch.full_like(kept[:, :100], 0.01))
        assert (kept[:, 100:] == 0).all()


def test_top_p_of_one_keeps_even_a_token_of_probability_1e_12():
    kept = TokenSampler(top_p=1.0).probabilities(torch.tensor([1.0, 1e-12, 1e-12], dtype=torch.float64).log())
    assert (kept > 0).all()


@given(
    row=logits, top_p=st.none() | st.floats(0.01, 1), top_k=st.none() | st.integers(1, 9), uniform=st.floats(0, 0.999)
)
def test_sampled_tokens_were_kept(row, top_p, top_k, uniform):
    choice, tensor = TokenSampler(1.0, top_k, top_p), torch.tensor([row], dtype=torch.float64)
    token = choice.sample(tensor, torch.tensor([uniform], dtype=torch.float64))
    assert choice.probabilities(tensor)[0, token] > 0


@given(row=logits, top_p=st.floats(0.01, 0.99), shift=st.integers(-8, 8))
def test_a_constant_added_to_the_logits_changes_nothing(row, top_p, shift):
    """Where no set's mass is within rounding of p."""
    p = softmax(row).sort(descending=True).values.cumsum(dim=0)
    assume(((p - top_p).abs() > 1e-9).all())
    tensor = torch.tensor(row, dtype=torch.float64)
    shifted = TokenSampler(top_p=top_p).probabilities(tensor + shift)
    # A sum that was rounded may tell tokens apart that were equal, or no longer.
    assert torch.allclose(
        shifted.sort().values, TokenSampler(top_p=top_p).probabilities(tensor).sort().values, atol=ROUNDING
    )


NEXT_TO_ONE = 1 - 2.0**-53


def test_a_uniform_falls_in_the_stretch_of_its_class():
    chances = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64).expand(6, 3)
    u = torch.tensor([0.0, 0.4999, 0.5001, 0.7499, 0.7501, NEXT_TO_ONE], dtype=torch.float64)
    assert sample_categorical(chances, u).tolist() == [0, 0, 1, 1, 2, 2]


def test_a_token_of_probability_1e_12_can_be_sampled():
    """Its stretch is 0.5 -+ 5e-13; the float32 number next to 0.5 is 3e-8 away."""
    chances = torch.tensor([0.5, 1e-12, 0.5], dtype=torch.float64)
    stretch = torch.tensor([0.5 - 6e-13, 0.5 + 4e-13, 0.5 + 6e-13], dtype=torch.float64)
    assert sample_categorical(chances.expand(3, 3), stretch).tolist() == [0, 1, 2]


@given(
    weights=st.lists(st.one_of(st.just(0.0), st.floats(1e-12, 1e12)), min_size=1, max_size=9).filter(any),
    uniform=st.one_of(st.just(0.0), st.just(NEXT_TO_ONE), st.floats(0, 1, exclude_max=True)),
)
def test_a_class_of_weight_zero_is_never_sampled(weights, uniform):
    token = sample_categorical(torch.tensor([weights]).double(), torch.tensor([uniform]).double())
    assert weights[int(token)] > 0


def test_frequencies_are_the_probabilities():
    """An even lattice of uniforms gives every class its probability to within one lattice point."""
    probabilities = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    lattice = torch.arange(1000, dtype=torch.float64) / 1000 + 0.0005
    samples = sample_categorical(probabilities.expand(1000, 4), lattice)
    assert ((torch.bincount(samples) - 1000 * probabilities).abs() <= 1).all()


def test_a_float32_gumbel_cannot_reach_what_this_draw_does():
    """The largest and smallest Gumbel numbers of uniforms (k + 1/2) / 2^24 lie 20 apart: e^-20 = 2e-9 is out of reach.

    Two classes of chances 1 and 1e-10 differ by 23 in logits, so the rare one never wins, whatever the uniforms.
    """
    ends = torch.tensor([2.0**-25, 1 - 2.0**-24], dtype=torch.float32)
    lowest, highest = -(-ends.log()).log()
    rare = torch.tensor(1e-10).log()
    assert rare + highest < lowest
    chances = torch.tensor([1.0, 1e-10], dtype=torch.float64)
    u = torch.tensor([1 - 0.9e-10, 1 - 1.1e-10], dtype=torch.float64)
    assert sample_categorical(chances.expand(2, 2), u).tolist() == [1, 0]


def test_no_weights_give_no_draws():
    assert sample_categorical(torch.zeros(0, 5, dtype=torch.float64), torch.zeros(0, dtype=torch.float64)).shape == (0,)
