"""Growth of gradients: the last finite norms beside the usual ones."""

import math

import pytest
import torch

from mdpipe.training.growth import MEMORY, Growth

FINE, BAD = torch.tensor(True), torch.tensor(False)


def after(*norms: list[float], fine: int | None = None) -> Growth:
    """The growth after these steps, of which the first `fine` were finite."""
    growth = Growth(len(norms[0]), torch.device("cpu"))
    for step, of_step in enumerate(norms):
        growth.write(FINE if fine is None or step < fine else BAD, torch.tensor(of_step))
    return growth


def test_the_last_norm_is_compared_with_those_before_it():
    growth = after([1.0, 2.0, 4.0], [1.0, 2.0, 4.0], [30.0, 2.0, 8.0])
    assert growth.largest(3) == [(0, 30.0), (2, 2.0)]
    assert growth.largest(1) == [(0, 30.0)]


def test_what_is_usual_follows_slowly():
    usual = MEMORY * 1.0 + (1 - MEMORY) * 3.0
    [(_, times)] = after([1.0], [3.0], [6.0]).largest(1)
    assert times == pytest.approx(6.0 / usual)


def test_nothing_counts_after_the_first_step_that_is_not_finite():
    steps = [[1.0, 1.0], [5.0, 1.0], [math.nan, math.inf], [1.0, 1e9]]
    assert after(*steps, fine=2).largest(2) == [(0, 5.0)]


@pytest.mark.parametrize("fine", [0, 1])
def test_before_two_finite_steps_there_is_nothing_to_tell(fine):
    assert after([1.0], [2.0], [3.0], fine=fine).largest(1) == []


def test_a_gradient_that_was_always_zero_is_left_out():
    assert after([0.0, 1.0], [0.0, 1.0], [1.0, 2.0]).largest(2) == [(1, 2.0)]
