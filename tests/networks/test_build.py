"""Building networks from configurations: the published sizes, and initial weights that depend only on the seed."""

import pytest
import torch
from pydantic import ValidationError

from mdpipe.networks.base import build_on_meta, count_parameters
from mdpipe.params.networks import NetworkConfig, TransformerConfig, UNetConfig, UViTConfig


@pytest.mark.parametrize(
    ("vocab_size", "length", "num_layers", "num_heads", "hidden_size", "millions"),
    [(27, 256, 12, 12, 768, 88.7), (50257, 1024, 12, 12, 768, 165.9), (50257, 1024, 24, 16, 1024, 416.2)],
    ids=["text8", "OpenWebText small", "OpenWebText medium"],
)
def test_transformer_has_the_published_parameter_counts(
    vocab_size, length, num_layers, num_heads, hidden_size, millions
):
    config = TransformerConfig(
        num_layers=num_layers, num_heads=num_heads, hidden_size=hidden_size, time_conditioning=True
    )
    network = build_on_meta(config, vocab_size, (length,))
    assert round(count_parameters(network) / 1e6, 1) == millions
    assert all(parameter.is_meta for parameter in network.parameters())


def test_unet_has_the_published_parameter_count():
    """28.43M, recomputed from the paper's code for CIFAR-10."""
    config = UNetConfig(hidden_size=128, num_blocks=32, time_conditioning=True)
    assert round(count_parameters(build_on_meta(config, 256, (32, 32, 3))) / 1e6, 2) == 28.43


@pytest.mark.parametrize(
    ("num_blocks", "num_layers", "millions"), [(24, 12, 198.28), (48, 12, 288.03), (8, 20, 204.60)]
)
def test_uvit_has_the_published_parameter_counts(num_blocks, num_layers, millions):
    """ImageNet 64 x 64: the model of Table 3, a variant with 48 blocks per side, and the small model of Table 6."""
    config = UViTConfig(
        hidden_size=256,
        num_blocks=num_blocks,
        transformer_width=768,
        num_layers=num_layers,
        num_heads=12,
        time_conditioning=True,
    )
    assert round(count_parameters(build_on_meta(config, 256, (64, 64, 3))) / 1e6, 2) == millions


def test_weights_are_equal_exactly_for_equal_seeds(kind, build):
    first, second, other = (build(kind, seed=seed, time_conditioning=True).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    assert all(tensor.isfinite().all() for tensor in first.values())


def test_building_neither_reads_nor_changes_the_global_rng(kind, build):
    before = torch.random.get_rng_state()
    first = build(kind).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(3)
    second = build(kind).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_unknown_kind_is_an_error():
    with pytest.raises(ValidationError, match=r"must be one of transformer, unet, uvit, or the name of an added file"):
        NetworkConfig.parse({"kind": "mamba"})
