"""The group norm as compiled code computes it is the plain one."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx

from mdpipe.networks.group_norm import GroupNorm, num_groups


def as_it_is(graph: fx.GraphModule, _: object) -> Callable[..., object]:
    """A compiler that compiles nothing: what is told from compiling takes place, quickly."""
    return graph.forward


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_it_has_the_values_and_gradients_of_the_plain_one(affine: bool, dtype: torch.dtype) -> None:
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

    for found, expected in zip(run(torch.compile(norm, backend=as_it_is)), run(norm), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4 if dtype == torch.float32 else 1e-2, atol=1e-5)


def test_compiled_it_does_not_fail_where_a_group_is_constant() -> None:
    norm = GroupNorm(2, 8)
    x = torch.full((1, 8, 4, 4), 3.0, requires_grad=True)
    y = torch.compile(norm, backend=as_it_is)(x)
    (gradient,) = torch.autograd.grad(y.square().sum(), x)
    assert y.abs().max() < 1e-2
    assert gradient.isfinite().all()


@pytest.mark.parametrize(("width", "groups"), [(8, 2), (32, 8), (48, 12), (64, 32), (96, 32), (128, 32), (256, 32)])
def test_there_are_32_groups_as_soon_as_each_has_two_channels(width: int, groups: int) -> None:
    assert num_groups(width) == groups
