"""Winograd's way to convolve is a plain convolution with half the multiplications, and what compiled code takes."""

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

from mdpipe.diffusion.noise import Noise
from mdpipe.networks.base import layers
from mdpipe.networks.convolution import INPUTS, KERNEL, OUTPUTS, ROWS, Convolution, winograd

pytestmark = pytest.mark.slow


def test_the_matrices_are_exactly_those_of_a_convolution_with_three_rows():
    """Summed over products p, OUTPUTS[o][p] KERNEL[p][k] INPUTS[p][i] is 1 where i = o + k, else 0."""
    outputs, kernel, inputs = (
        [[Fraction(number).limit_denominator(100) for number in line] for line in matrix]
        for matrix in (OUTPUTS, KERNEL, INPUTS)
    )
    assert len(kernel) == len(inputs) == ROWS + 2
    for o, k, i in product(range(ROWS), range(3), range(ROWS + 2)):
        found = sum(outputs[o][p] * kernel[p][k] * inputs[p][i] for p in range(ROWS + 2))
        assert found == (i == o + k)


def drawn(*shapes: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=random, dtype=dtype) for shape in shapes]


@given(
    st.integers(1, 3), st.integers(1, 3), st.integers(1, 5), st.integers(1, 4), st.integers(1, 4), st.booleans(),
    st.integers(0, 2**32),
)  # fmt: skip
def test_it_is_a_plain_convolution_with_its_gradients(
    batch: int, tiles: int, breadth: int, channels: int, width: int, has_bias: bool, seed: int
) -> None:
    x, weight, bias, back = drawn(
        (batch, channels, ROWS * tiles, breadth), (width, channels, 3, 3), (width,),
        (batch, width, ROWS * tiles, breadth), seed=seed,
    )  # fmt: skip
    inputs = [each.requires_grad_() for each in ((x, weight, bias) if has_bias else (x, weight))]
    found = winograd(*inputs) if has_bias else winograd(*inputs, None)
    expected = functional.conv2d(*inputs, padding=1)
    torch.testing.assert_close(found, expected)
    gradients = torch.autograd.grad(found, inputs, back)
    for gradient, wanted in zip(gradients, torch.autograd.grad(expected, inputs, back), strict=True):
        torch.testing.assert_close(gradient, wanted)


def test_it_multiplies_half_as_often() -> None:
    x, weight = drawn((2, 8, 8, 8), (8, 8, 3, 3), seed=0)

    def multiplications(convolve: Callable[[], Tensor]) -> int:
        with FlopCounterMode(display=False) as counted:
            convolve()
        return counted.get_total_flops()

    plain = multiplications(lambda: functional.conv2d(x, weight, padding=1))
    assert 2 * multiplications(lambda: winograd(x, weight, None)) == plain


def test_in_bfloat16_its_error_is_about_three_times_that_of_a_plain_convolution() -> None:
    x, weight = drawn((4, 64, 16, 16), (32, 64, 3, 3), seed=0, dtype=torch.float32)
    x = x.to(torch.bfloat16, memory_format=torch.channels_last)
    exact = functional.conv2d(x.double(), weight.double(), padding=1)
    with torch.autocast("cpu", torch.bfloat16):
        plain, quick = functional.conv2d(x, weight, padding=1), winograd(x, weight, None)
    assert plain.dtype == quick.dtype == torch.bfloat16
    plain_error, error = ((y - exact).norm() / exact.norm() for y in (plain, quick))
    assert plain_error < error < 4 * plain_error < 0.02


@pytest.mark.parametrize(("height", "groups"), [(8, {6}), (6, {1})])
def test_compiled_code_takes_it_where_tiles_cover_the_height(height: int, groups: set[int]) -> None:
    found = set()

    def look(graph: fx.GraphModule, _: Any) -> Callable[..., Any]:
        found.update(
            node.args[6] if len(node.args) > 6 else node.kwargs.get("groups", 1)
            for node in graph.graph.nodes
            if "conv2d" in str(node.target)
        )
        return graph.forward

    convolution = Convolution(8, 4)
    compiled = torch.compile(convolution, backend=look)
    for batch in (2, 3):  # A second size of batch is compiled anew, for any size.
        (x,) = drawn((batch, 8, height, 5), seed=0, dtype=torch.float32)
        torch.testing.assert_close(compiled(x), convolution(x))
    assert found == groups


@pytest.mark.parametrize("kind", ["unet", "uvit"])
def test_compiled_networks_have_the_values_and_gradients_of_plain_ones(shaken, kind: str) -> None:
    def run(compiled: bool) -> list[Tensor]:
        network = shaken(kind, shape=(4, 2, 2), time_conditioning=True, dropout=0.5)
        if compiled:
            for layer in layers(network):
                layer.compile(backend="aot_eager")
        tokens = torch.randint(6, (3, 16), generator=torch.Generator().manual_seed(3))
        keys = Noise(0, "test/dropout").keys(0, torch.arange(3))
        logits = network(tokens, torch.linspace(0, 1, 3), None, keys)
        return [logits.detach(), *torch.autograd.grad(logits.square().sum(), list(network.parameters()))]

    for found, expected in zip(run(compiled=True), run(compiled=False), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
