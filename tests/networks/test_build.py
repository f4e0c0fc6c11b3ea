"""Building networks from configurations: the published sizes, and initial weights that depend only on the seed."""

from typing import ClassVar, Literal

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from mdpipe.networks.base import Network, NetworkSpec, build_network, build_uninitialized, count_parameters
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
    network = build_uninitialized(NetworkSpec(config, vocab_size, (length,)))
    assert round(count_parameters(network) / 1e6, 1) == millions
    assert all(parameter.is_meta for parameter in network.parameters())


def test_unet_has_the_published_parameter_count():
    """28.43M, recomputed from the paper's code for CIFAR-10."""
    config = UNetConfig(hidden_size=128, num_blocks=32, time_conditioning=True)
    assert round(count_parameters(build_uninitialized(NetworkSpec(config, 256, (32, 32, 3)))) / 1e6, 2) == 28.43


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
    assert round(count_parameters(build_uninitialized(NetworkSpec(config, 256, (64, 64, 3)))) / 1e6, 2) == millions


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


class LayersConfig(NetworkConfig):
    """A network of layers that mdpipe does not initialize itself."""

    takes_images: ClassVar[bool] = False
    takes_classes: ClassVar[bool] = False

    kind: Literal["layers"] = "layers"
    forgotten: bool = False


class Layers(Network, config=LayersConfig):
    """Layers with initial values of their own, and optionally a parameter without any."""

    def __init__(self, config, vocab_size, shape, *, num_classes=0, causal=False):
        super().__init__(config, vocab_size, shape, num_classes=num_classes, causal=causal)
        self.recurrent = nn.GRU(8, 4, bidirectional=True, batch_first=True)
        self.attention = nn.MultiheadAttention(8, 2)
        self.norms = nn.ModuleList([nn.LayerNorm(8), nn.BatchNorm1d(8)])
        self.offsets = nn.Parameter(torch.randn(3))
        self.register_buffer("frequencies", torch.arange(4.0), persistent=False)
        self.head = nn.Linear(8, vocab_size)
        if config.forgotten:
            self.forgotten = nn.Parameter(torch.empty(3))

    def init_weights(self, generator):
        nn.init.zeros_(self.head.weight)

    def forward(self, tokens, t, class_labels=None, dropout_keys=None):
        raise NotImplementedError


del NetworkConfig.kinds["layers"]  # Other tests walk all kinds.


def test_pytorchs_own_initialization_depends_only_on_the_seed():
    before = torch.get_rng_state()
    first, again, other = (build_network(NetworkSpec(LayersConfig(), 5, (4,)), seed=seed) for seed in (0, 0, 1))
    torch.testing.assert_close(torch.get_rng_state(), before, rtol=0, atol=0)
    for name, tensor in first.state_dict().items():
        torch.testing.assert_close(tensor, again.state_dict()[name], rtol=0, atol=0)
    assert not torch.equal(first.offsets, other.offsets)
    assert not torch.equal(first.recurrent.weight_hh_l0, other.recurrent.weight_hh_l0)
    assert not first.head.weight.any()
    assert first.norms[0].weight.eq(1).all()


def test_buffers_that_are_not_saved_have_their_values():
    networks = (
        build_network(NetworkSpec(LayersConfig(), 5, (4,)), seed=0),
        build_uninitialized(NetworkSpec(LayersConfig(), 5, (4,)), device="cpu"),
    )
    for network in networks:
        torch.testing.assert_close(network.frequencies, torch.arange(4.0))


@pytest.mark.parametrize(
    ("config", "shape", "options", "problem"),
    [
        (LayersConfig(), (4, 4, 1), {}, r"layers takes text of shape \(length,\), not \(4, 4, 1\)"),
        (LayersConfig(), (4,), {"num_classes": 3}, "layers takes no classes, not 3"),
        (LayersConfig(), (4,), {"causal": True}, "layers sees every position at once and cannot be causal"),
        (UNetConfig(hidden_size=4, num_blocks=1), (16,), {}, r"unet takes images of shape .*, not \(16,\)"),
    ],
)
def test_a_network_refuses_what_its_configuration_denies(config, shape, options, problem):
    with pytest.raises(ValueError, match=problem):
        build_uninitialized(NetworkSpec(config, 5, shape, **options))


def test_a_parameter_that_nothing_initializes_is_refused():
    with pytest.raises(ValueError, match=r"initial values of forgotten in network\.kind = layers"):
        build_network(NetworkSpec(LayersConfig(forgotten=True), 5, (4,)), seed=0)
