"""A network of a user's own is refused before the first step if training, saving or resuming would fail silently."""

from typing import ClassVar, Literal

import numpy as np
import pytest
import torch
from torch import nn

from mdpipe.networks.base import Network, NetworkSpec, build_network
from mdpipe.networks.layers import dropout
from mdpipe.params.networks import NetworkConfig
from mdpipe.training.interface import check_interface
from tests.networks.conftest import build, kind  # noqa: F401 (fixtures)


class OwnConfig(NetworkConfig):
    """A network with one fault, if any."""

    takes_images: ClassVar[bool] = False

    kind: Literal["own"] = "own"
    fault: str = ""
    dropout: float = 0.0


class Own(Network, config=OwnConfig):
    """One layer, and a fault by name."""

    def __init__(self, config, vocab_size, shape, *, num_classes=0, causal=False):
        super().__init__(config, vocab_size, shape, num_classes=num_classes, causal=causal)
        self.embedding = nn.Embedding(vocab_size + 1, 8)
        self.norm = nn.BatchNorm1d(8)
        self.register_buffer("perm", torch.randperm(8), persistent=config.fault != "unsaved buffer")
        self.scale = torch.full((8,), 0.5)
        self.perms = []
        match config.fault:
            case "plain attribute":
                self.offset = torch.randn(8)
            case "list":
                self.perms = [torch.randperm(8)]
            case "set by nn.init":
                self.register_buffer("offset", nn.init.constant_(torch.empty(8), 2.0), persistent=False)
            case "shared layer":
                self.layers = nn.ModuleList([nn.Linear(8, 8)] * 2)
            case "global dropout":
                self.drop = nn.Dropout(0.1)
        if config.fault != "no head":
            self.head = nn.Linear(8, vocab_size)

    def init_weights(self, generator):
        pass

    def forward(self, tokens, t, class_labels=None, dropout_keys=None):
        x = self.norm(self.embedding(tokens)[..., self.perm].transpose(1, 2)).transpose(1, 2) * self.scale
        x = dropout(x, dropout_keys, self.dropout)
        for perm in self.perms:
            x = x[..., perm]
        match self.config.fault:
            case "global dropout":
                x = self.drop(x)
            case "randn":
                x = x + torch.randn_like(x)
            case "numpy":
                x = x * np.random.rand()  # noqa: NPY002
            case "float32 time":
                x = x + (t[:, None] @ self.embedding.weight[:1])[:, None]
            case "tuple":
                return x, x
        return x


del NetworkConfig.kinds["own"]  # Other tests walk all kinds.


def own(fault, **options):
    return build_network(NetworkSpec(OwnConfig(fault=fault, **options), 5, (12,), num_classes=3), seed=0)


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_a_network_without_fault_passes_unchanged(rate):
    network = own("", dropout=rate)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    check_interface(network)
    assert network.training
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)


@pytest.mark.parametrize("options", [{"dropout": 0.5, "num_classes": 3}, {"time_conditioning": True}])
def test_built_in_networks_pass(kind, build, options):  # noqa: F811
    check_interface(build(kind, **options))


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        ("unsaved buffer", r"^network\.kind = own is another .* tensors \(perm\) .* as persistent buffers"),
        ("plain attribute", r"^network\.kind = own is another .* tensors \(offset\) .* as persistent buffers"),
        ("list", r"^network\.kind = own is another .* tensors that are not saved, .* as persistent buffers"),
        ("set by nn.init", r"^network\.kind = own is another .* tensors \(offset\) .* as persistent buffers"),
        ("shared layer", r"own has one tensor under two names, layers\.0\.weight and layers\.1\.weight, which"),
        ("global dropout", r"own samples global random numbers, .* use `dropout` of mdpipe\.networks\.layers"),
        ("randn", r"own samples global random numbers, .* use `dropout` of mdpipe\.networks\.layers"),
        ("numpy", r"own samples global random numbers, .* use `dropout` of mdpipe\.networks\.layers"),
        ("float32 time", r"own fails on masks, .* at a float64 time: RuntimeError: .*"),
        ("tuple", r"own returns a tuple, not hidden states \(1, 12, D\)"),
        ("no head", r"the head of network\.kind = own fails .*: AttributeError: .*'head'"),
    ],
)
def test_a_fault_is_refused_in_one_line(fault, problem):
    with pytest.raises(ValueError, match=problem) as error:
        check_interface(own(fault))
    assert "\n" not in str(error.value)


def test_a_forward_that_takes_too_little_is_refused(monkeypatch):
    monkeypatch.setattr(Own, "forward", lambda self, tokens, t: self.embedding(tokens))
    with pytest.raises(ValueError, match=r"own fails on masks, .*: TypeError: .* takes 3 positional arguments"):
        check_interface(own(""))


@pytest.mark.parametrize(
    ("part", "module", "problem"),
    [
        (
            "embedding",
            nn.Embedding(5, 16),
            "fails on masks, which are token 5 of a vocabulary of 5, at a float64 time: IndexError: index",
        ),
        ("head", nn.Linear(16, 6), r"head of network\.kind = transformer returns \(1, 1, 6\), not logits \(1, 1, 5\)"),
        (
            "head",
            nn.Linear(15, 5),
            r"head of network\.kind = transformer fails on hidden states \(1, 1, 16\): RuntimeError: mat1",
        ),
        ("norm", lambda x, _: x[..., 0], r"transformer returns \(1, 12\), not hidden states \(1, 12, D\)"),
        ("norm", lambda x, _: x[:, :3], r"transformer returns \(1, 3, 16\), not hidden states \(1, 12, D\)"),
    ],
)
def test_a_network_whose_results_do_not_fit_is_refused(build, part, module, problem):  # noqa: F811
    network = build("transformer")
    check_interface(network)
    del network._modules[part]
    setattr(network, part, module)
    with pytest.raises(ValueError, match=problem):
        check_interface(network)
