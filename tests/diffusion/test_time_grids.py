"""Time grids: laws of all of them."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from mdpipe.diffusion.schedules.base import TIME_GRIDS, Cosine, Linear, cosine_grid, uniform_grid
from mdpipe.params.diffusion import CosineConfig, LinearConfig


@given(kind=st.sampled_from(sorted(TIME_GRIDS)), steps=st.integers(1, 1000))
def test_a_grid_rises_from_exactly_zero_to_exactly_one(kind, steps):
    grid = TIME_GRIDS[kind](steps)
    assert grid.shape == (steps + 1,) and grid.dtype == torch.float64
    assert grid[0] == 0 and grid[-1] == 1
    assert (grid.diff() > 0).all()


@given(steps=st.integers(1, 1000), epsilon=st.sampled_from([0.0, 1e-4, 0.1]))
def test_linear_on_cosine_grid_is_cosine_on_uniform_grid(steps, epsilon):
    """The same alphas, to rounding: the two ways of sampling are one."""
    on_cosine_grid = Linear(LinearConfig(epsilon=epsilon)).alpha(cosine_grid(steps))
    on_uniform_grid = Cosine(CosineConfig(epsilon=epsilon)).alpha(uniform_grid(steps))
    assert torch.allclose(on_cosine_grid, on_uniform_grid, rtol=0, atol=1e-15)
