"""Laws of the U-ViT."""

import math
import re

import pytest
import torch
from pydantic import ValidationError

from mdpipe.networks.uvit import sincos_positions
from mdpipe.params.networks import UViTConfig
from tests.networks.conftest import SMALL

NO_DROPOUT = [None] * 8


def test_splitting_into_patches_is_inverted(build):
    """With an identity in place of the transformer, the output is the input."""
    network = build("uvit", shape=(4, 6, 1), hidden_size=4, transformer_width=16)
    network.middle = torch.nn.ModuleList()
    network.middle_norm.forward = lambda x, _: x
    with torch.no_grad():
        network.positions.zero_()
        for linear in (network.patches, network.pixels):
            linear.weight.copy_(torch.eye(16))
            linear.bias.zero_()
        x = torch.randn(2, 4, 4, 6)
        assert torch.equal(network._transform_patches(x, None, NO_DROPOUT), x)


def test_transformer_connects_all_patches_and_is_initially_zero(build, perturbed):
    network = build("uvit", shape=(4, 4, 1))
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


@pytest.mark.parametrize("shape", [(5, 4, 1), (4, 5, 1), (64,)])
def test_uvit_takes_images_of_even_size(build, shape):
    with pytest.raises(ValueError, match=rf"network.kind = uvit takes .*, not {re.escape(str(shape))}"):
        build("uvit", shape=shape)


def test_causal_uvit_is_an_error(build):
    with pytest.raises(ValueError, match=r"network.kind = uvit .* cannot be causal"):
        build("uvit", causal=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_heads": 3}, r"num_heads\n *does not divide transformer_width = 8"),
        ({"transformer_width": 6}, r"transformer_width\n *.* multiple of 4"),
        ({"hidden_size": 6}, r"hidden_size\n *.* multiple of 4"),
    ],
)
def test_uvit_widths_and_heads_are_checked(changes, message):
    with pytest.raises(ValidationError, match=message):
        UViTConfig.model_validate(SMALL["uvit"][0].model_dump() | changes)


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
