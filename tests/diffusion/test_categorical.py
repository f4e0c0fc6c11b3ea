"""Categorical draws: exact in float64, at both ends of the uniforms and far down the tail."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from mdpipe.diffusion.categorical import draw

NEXT_TO_ONE = 1 - 2.0**-53


def test_a_uniform_falls_in_the_stretch_of_its_class():
    chances = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64).expand(6, 3)
    uniforms = torch.tensor([0.0, 0.4999, 0.5001, 0.7499, 0.7501, NEXT_TO_ONE], dtype=torch.float64)
    assert draw(chances, uniforms).tolist() == [0, 0, 1, 1, 2, 2]


def test_a_token_of_probability_1e_12_can_be_drawn():
    """Its stretch is 0.5 -+ 5e-13; the float32 number next to 0.5 is 3e-8 away."""
    chances = torch.tensor([0.5, 1e-12, 0.5], dtype=torch.float64)
    stretch = torch.tensor([0.5 - 6e-13, 0.5 + 4e-13, 0.5 + 6e-13], dtype=torch.float64)
    assert draw(chances.expand(3, 3), stretch).tolist() == [0, 1, 2]


@given(
    weights=st.lists(st.one_of(st.just(0.0), st.floats(1e-12, 1e12)), min_size=1, max_size=9).filter(any),
    uniform=st.one_of(st.just(0.0), st.just(NEXT_TO_ONE), st.floats(0, 1, exclude_max=True)),
)
def test_a_class_of_weight_zero_is_never_drawn(weights, uniform):
    chosen = draw(torch.tensor([weights], dtype=torch.float64), torch.tensor([uniform], dtype=torch.float64))
    assert weights[int(chosen)] > 0


def test_shares_are_the_probabilities():
    """An even lattice of uniforms gives every class its probability to within one lattice point."""
    probabilities = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    lattice = torch.arange(1000, dtype=torch.float64) / 1000 + 0.0005
    drawn = draw(probabilities.expand(1000, 4), lattice)
    assert ((torch.bincount(drawn) - 1000 * probabilities).abs() <= 1).all()


def test_a_float32_gumbel_cannot_reach_what_this_draw_does():
    """The largest and smallest Gumbel numbers of uniforms (k + 1/2) / 2^24 lie 20 apart: e^-20 = 2e-9 is out of reach.

    Two classes of chances 1 and 1e-10 differ by 23 in logits, so the rare one never wins, whatever the uniforms.
    """
    ends = torch.tensor([2.0**-25, 1 - 2.0**-24], dtype=torch.float32)
    lowest, highest = -(-ends.log()).log()
    rare = torch.tensor(1e-10).log()
    assert rare + highest < lowest
    chances = torch.tensor([1.0, 1e-10], dtype=torch.float64)
    assert draw(chances.expand(2, 2), torch.tensor([1 - 0.9e-10, 1 - 1.1e-10], dtype=torch.float64)).tolist() == [1, 0]


def test_no_weights_give_no_draws():
    assert draw(torch.zeros(0, 5, dtype=torch.float64), torch.zeros(0, dtype=torch.float64)).shape == (0,)
