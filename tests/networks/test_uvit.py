"""Laws of the U-ViT."""

import math

import pytest
import torch

from mdpipe.networks.base import build_network
from mdpipe.networks.uvit import sincos_positions

SIZES = {
    "width": 8,
    "blocks": 1,
    "middle_width": 8,
    "layers": 2,
    "heads": 2,
    "time_conditioning": False,
    "dropout": 0.0,
}
NO_DROPOUT = [None] * 8


def test_splitting_into_patches_is_inverted():
    """With an identity in place of the transformer, the output is the input."""
    network = build_network("uvit", 5, (4, 6, 1), seed=0, **{**SIZES, "width": 4, "middle_width": 16, "layers": 1})
    network.middle = torch.nn.ModuleList()
    network.middle_norm.forward = lambda x, _: x
    with torch.no_grad():
        network.positions.zero_()
        for linear in (network.patches, network.pixels):
            linear.weight.copy_(torch.eye(16))
            linear.bias.zero_()
        x = torch.randn(2, 4, 4, 6)
        assert torch.equal(network._transform_patches(x, None, NO_DROPOUT), x)


def test_transformer_connects_all_patches_and_is_initially_zero(perturbed):
    network = build_network("uvit", 5, (4, 4, 1), seed=0, **SIZES)
    x = torch.randn(1, 8, 4, 4)
    assert not network._transform_patches(x, None, NO_DROPOUT).any()
    network = perturbed("uvit", shape=(4, 4, 1))
    changed = x.clone()
    changed[0, 0, 0, 0] += 1
    with torch.no_grad():
        difference = (
            (network._transform_patches(changed, None, NO_DROPOUT) - network._transform_patches(x, None, NO_DROPOUT))
            .abs()
            .amax(dim=1)[0]
        )
    assert (difference > 1e-6).all()


@pytest.mark.parametrize(
    ("shape", "changes", "message"),
    [
        ((5, 4, 1), {}, r"of even size, not \(5, 4, 1\)"),
        ((64,), {}, r"of even size, not \(64,\)"),
        ((4, 4, 1), {"heads": 3}, r"network.heads = 3 does not divide network.middle_width = 8"),
        ((4, 4, 1), {"middle_width": 6}, r"network.middle_width = 6 must be a multiple of 4"),
        ((4, 4, 1), {"width": 6}, r"network.width = 6 must be a multiple of 4"),
        ((4, 4, 1), {"causal": True}, r"network.kind = uvit .* cannot be causal"),
    ],
)
def test_uvit_shape_widths_and_heads_are_checked(shape, changes, message):
    with pytest.raises(ValueError, match=message):
        build_network("uvit", 5, shape, seed=0, **{**SIZES, **changes})


def test_positions_are_sines_and_cosines_of_column_and_row() -> None:
    """By their definition, and for the paper's size by the official implementation's mean and deviation."""
    positions = sincos_positions(3, 5, 16)
    for row, column, channel in [(0, 0, 0), (2, 1, 3), (1, 4, 5), (2, 3, 9), (2, 4, 15)]:
        value, (part, k) = (column if channel < 8 else row), divmod(channel % 8, 4)
        angle = value * 10_000 ** (-k / 4)
        expected = math.cos(angle) if part else math.sin(angle)
        assert positions[5 * row + column, channel].item() == pytest.approx(expected, abs=1e-6)
    official = sincos_positions(32, 32, 768)
    assert official.std().item() == pytest.approx(0.569654, abs=1e-5)
    assert official.mean().item() == pytest.approx(0.4189, abs=1e-4)
