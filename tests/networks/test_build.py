"""Building networks by name: the published sizes, and initial weights that depend only on the seed."""

import pytest
import torch

from mdpipe.networks.base import build_network, build_on_meta, count_parameters


@pytest.mark.parametrize(
    ("vocab_size", "shape", "sizes", "millions"),
    [
        (27, (256,), {"layers": 12, "heads": 12, "width": 768}, 88.7),
        (50257, (1024,), {"layers": 12, "heads": 12, "width": 768}, 165.9),
        (50257, (1024,), {"layers": 24, "heads": 16, "width": 1024}, 416.2),
    ],
    ids=["text8", "OpenWebText small", "OpenWebText medium"],
)
def test_transformer_has_the_published_parameter_counts(vocab_size, shape, sizes, millions):
    network = build_on_meta("transformer", vocab_size, shape, **sizes, time_conditioning=True, dropout=0.0)
    assert round(count_parameters(network) / 1e6, 1) == millions
    assert all(parameter.is_meta for parameter in network.parameters())


def test_unet_has_the_published_parameter_count():
    """28.43M, recomputed from the paper's code for CIFAR-10."""
    sizes = {"width": 128, "blocks": 32, "time_conditioning": True, "dropout": 0.1}
    assert round(count_parameters(build_on_meta("unet", 256, (32, 32, 3), **sizes)) / 1e6, 2) == 28.43


@pytest.mark.parametrize(("blocks", "layers", "millions"), [(24, 12, 198.28), (48, 12, 288.03), (8, 20, 204.60)])
def test_uvit_has_the_published_parameter_counts(blocks, layers, millions):
    """ImageNet 64 x 64: the model of Table 3, a variant with 48 blocks per side, and the small model of Table 6."""
    sizes = {"width": 256, "middle_width": 768, "heads": 12, "time_conditioning": True, "dropout": 0.1}
    network = build_on_meta("uvit", 256, (64, 64, 3), blocks=blocks, layers=layers, **sizes)
    assert round(count_parameters(network) / 1e6, 2) == millions


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
    with pytest.raises(ValueError, match=r"network.kind is 'mamba'.*transformer, unet, uvit"):
        build_network("mamba", 5, (8,), seed=0)
