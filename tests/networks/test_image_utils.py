"""Convolutions and group norms for compiled code on a CPU equal torch's, with half the multiplications."""

from collections.abc import Callable
from fractions import Fraction
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, fx
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from mdpipe.diffusion.rng import CounterRNG
from mdpipe.networks.base import get_blocks
from mdpipe.networks.image_utils import (
    INPUT_TRANSFORM,
    KERNEL_TRANSFORM,
    OUTPUT_TRANSFORM,
    TILE_ROWS,
    Conv3x3,
    GroupNorm,
    num_groups,
    winograd_conv2d,
)

pytestmark = pytest.mark.slow


def test_winograd_matrices_are_exactly_a_convolution():
    """The sum over p of A^T[o][p] G[p][k] B^T[p][i] is 1 where i = o + k, else 0."""
    outputs, kernel, inputs = (
        [[Fraction(number).limit_denominator(100) for number in line] for line in matrix]
        for matrix in (OUTPUT_TRANSFORM, KERNEL_TRANSFORM, INPUT_TRANSFORM)
    )
    assert len(kernel) == len(inputs) == TILE_ROWS + 2
    for o, k, i in product(range(TILE_ROWS), range(3), range(TILE_ROWS + 2)):
        found = sum(outputs[o][p] * kernel[p][k] * inputs[p][i] for p in range(TILE_ROWS + 2))
        assert found == (i == o + k)


def sample(*shapes: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=random, dtype=dtype) for shape in shapes]


@given(
    st.integers(1, 3), st.integers(1, 3), st.integers(1, 5), st.integers(1, 4), st.integers(1, 4), st.booleans(),
    st.integers(0, 2**32),
)  # fmt: skip
def test_winograd_equals_a_convolution_with_its_gradients(
    batch: int, tiles: int, image_width: int, channels: int, width: int, has_bias: bool, seed: int
) -> None:
    x, weight, bias, back = sample(
        (batch, channels, TILE_ROWS * tiles, image_width), (width, channels, 3, 3), (width,),
        (batch, width, TILE_ROWS * tiles, image_width), seed=seed,
    )  # fmt: skip
    inputs = [each.requires_grad_() for each in ((x, weight, bias) if has_bias else (x, weight))]
    found = winograd_conv2d(*inputs) if has_bias else winograd_conv2d(*inputs, None)
    expected = functional.conv2d(*inputs, padding=1)
    torch.testing.assert_close(found, expected)
    gradients = torch.autograd.grad(found, inputs, back)
    for gradient, expected_gradient in zip(gradients, torch.autograd.grad(expected, inputs, back), strict=True):
        torch.testing.assert_close(gradient, expected_gradient)


def test_winograd_needs_half_the_multiplications() -> None:
    x, weight = sample((2, 8, 8, 8), (8, 8, 3, 3), seed=0)

    def multiplications(convolve: Callable[[], Tensor]) -> int:
        with FlopCounterMode(display=False) as counted:
            convolve()
        return counted.get_total_flops()

    plain = multiplications(lambda: functional.conv2d(x, weight, padding=1))
    assert 2 * multiplications(lambda: winograd_conv2d(x, weight, None)) == plain


def test_winograd_error_in_bfloat16_is_below_4x_the_plain() -> None:
    x, weight = sample((4, 64, 16, 16), (32, 64, 3, 3), seed=0, dtype=torch.float32)
    x = x.to(torch.bfloat16, memory_format=torch.channels_last)
    exact = functional.conv2d(x.double(), weight.double(), padding=1)
    with torch.autocast("cpu", torch.bfloat16):
        plain, winograd = functional.conv2d(x, weight, padding=1), winograd_conv2d(x, weight, None)
    assert plain.dtype == winograd.dtype == torch.bfloat16
    plain_error, error = ((y - exact).norm() / exact.norm() for y in (plain, winograd))
    assert plain_error < error < 4 * plain_error < 0.02


@pytest.mark.parametrize(("height", "groups"), [(8, {6}), (6, {1})])
def test_compiled_code_uses_winograd_where_tiles_fit_the_height(height: int, groups: set[int]) -> None:
    found = set()

    def record(graph: fx.GraphModule, _: Any) -> Callable[..., Any]:
        found.update(
            node.args[6] if len(node.args) > 6 else node.kwargs.get("groups", 1)
            for node in graph.graph.nodes
            if "conv2d" in str(node.target)
        )
        return graph.forward

    convolution = Conv3x3(8, 4)
    compiled = torch.compile(convolution, backend=record)
    for batch in (2, 3):  # The second batch size compiles again, for any size.
        (x,) = sample((batch, 8, height, 5), seed=0, dtype=torch.float32)
        torch.testing.assert_close(compiled(x), convolution(x))
    assert found == groups


@pytest.mark.parametrize("kind", ["unet", "uvit"])
def test_compiled_networks_have_the_same_values_and_gradients(perturbed, kind: str) -> None:
    def run(compiled: bool) -> list[Tensor]:
        network = perturbed(kind, shape=(4, 2, 2), time_conditioning=True, dropout=0.5)
        if compiled:
            for block in get_blocks(network):
                block.compile(backend="aot_eager")
        tokens = torch.randint(6, (3, 16), generator=torch.Generator().manual_seed(3))
        keys = CounterRNG(0, "test/dropout").keys(0, torch.arange(3))
        logits = network(tokens, torch.linspace(0, 1, 3), None, keys)
        return [logits.detach(), *torch.autograd.grad(logits.square().sum(), list(network.parameters()))]

    for found, expected in zip(run(compiled=True), run(compiled=False), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def no_compilation(graph: fx.GraphModule, _: object) -> Callable[..., object]:
    """Return the graph as a function: a compiler backend that only traces."""
    return graph.forward


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_group_norm_has_the_same_values_and_gradients(affine: bool, dtype: torch.dtype) -> None:
    random = torch.Generator().manual_seed(0)
    norm = GroupNorm(3, 12, affine=affine)
    for weight in norm.parameters():
        weight.data.normal_(generator=random)
    x = (2 * torch.randn(4, 12, 5, 3, generator=random) - 1).to(dtype).requires_grad_()
    back = torch.randn(x.shape, generator=random)
    inputs = [x, *norm.parameters()]

    def run(module: Callable[[Tensor], Tensor]) -> list[Tensor]:
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            y = module(x)
        assert y.dtype == torch.float32
        return [y, *torch.autograd.grad(y, inputs, back)]

    for found, expected in zip(run(torch.compile(norm, backend=no_compilation)), run(norm), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4 if dtype == torch.float32 else 1e-2, atol=1e-5)


def test_compiled_group_norm_is_finite_for_a_constant_group() -> None:
    norm = GroupNorm(2, 8)
    x = torch.full((1, 8, 4, 4), 3.0, requires_grad=True)
    y = torch.compile(norm, backend=no_compilation)(x)
    (gradient,) = torch.autograd.grad(y.square().sum(), x)
    assert y.abs().max() < 1e-2
    assert gradient.isfinite().all()


@pytest.mark.parametrize(("width", "groups"), [(8, 2), (32, 8), (48, 12), (64, 32), (96, 32), (128, 32), (256, 32)])
def test_there_are_32_groups_if_each_has_two_channels(width: int, groups: int) -> None:
    assert num_groups(width) == groups
