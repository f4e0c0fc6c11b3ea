"""Categorical draws: exact in float64, at both ends of the uniforms and far down the tail."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from mdpipe.diffusion.categorical import draw

NEXT_TO_ONE = 1 - 2.0**-53


def test_a_uniform_falls_in_the_stretch_of_its_class():
    logits = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64).log().expand(6, 3)
    uniforms = torch.tensor([0.0, 0.4999, 0.5001, 0.7499, 0.7501, NEXT_TO_ONE], dtype=torch.float64)
    assert draw(logits, uniforms).tolist() == [0, 0, 1, 1, 2, 2]


def test_a_token_of_probability_1e_12_can_be_drawn():
    """Its stretch is 0.5 -+ 5e-13; the float32 number next to 0.5 is 3e-8 away."""
    logits = torch.tensor([0.5, 1e-12, 0.5], dtype=torch.float64).log()
    stretch = torch.tensor([0.5 - 6e-13, 0.5 + 4e-13, 0.5 + 6e-13], dtype=torch.float64)
    assert draw(logits.expand(3, 3), stretch).tolist() == [0, 1, 2]


@given(
    logits=st.lists(st.one_of(st.just(-torch.inf), st.floats(-30, 30)), min_size=1, max_size=9),
    uniform=st.one_of(st.just(0.0), st.just(NEXT_TO_ONE), st.floats(0, 1, exclude_max=True)),
)
def test_a_class_of_probability_zero_is_never_drawn(logits, uniform):
    if all(logit == -torch.inf for logit in logits):
        logits = [*logits, 0.0]
    chosen = draw(torch.tensor([logits]), torch.tensor([uniform], dtype=torch.float64))
    assert logits[int(chosen)] > -torch.inf


def test_shares_are_the_probabilities():
    """An even lattice of uniforms gives every class its probability to within one lattice point."""
    probabilities = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    lattice = torch.arange(1000, dtype=torch.float64) / 1000 + 0.0005
    drawn = draw(probabilities.log().expand(1000, 4), lattice)
    assert ((torch.bincount(drawn) - 1000 * probabilities).abs() <= 1).all()


def test_no_logits_give_no_draws():
    assert draw(torch.zeros(0, 5), torch.zeros(0, dtype=torch.float64)).shape == (0,)
