"""Dropout by noise that is handed in: whole channels, the right share, and nothing unless asked."""

import pytest
import torch

from mdpipe.networks.dropout import WithDropout, kept_channels


def test_dropped_channels_are_zero_and_the_mean_stays():
    uniforms = torch.tensor([[0.0, 0.2, 0.25, 0.9], [0.3, 0.1, 0.5, 0.24]])
    first, second = kept_channels(uniforms, 0.25, 2)
    kept = 1 / 0.75
    assert torch.allclose(first, torch.tensor([[0, 0], [kept, 0]]))
    assert torch.allclose(second, torch.tensor([[kept, kept], [kept, 0]]))
    lattice = torch.linspace(0, 1, 1001)[None, :-1]
    assert kept_channels(lattice, 0.25, 1)[0].mean() == pytest.approx(1, rel=1e-6)


def test_a_network_without_dropout_takes_no_noise(kind, build):
    assert build(kind).dropout_channels == 0
    assert build(kind, dropout=0.1).dropout_channels > 0


def test_nothing_is_dropped_unless_noise_is_given(kind, shaken, tokens, times):
    """In training mode too, so that forgetting .eval() cannot change a result."""
    with torch.no_grad():
        plain = shaken(kind)(tokens, times)
        assert torch.equal(shaken(kind, dropout=0.5).train()(tokens, times), plain)
        assert torch.equal(shaken(kind, dropout=0.5).eval()(tokens, times), plain)


def test_noise_that_drops_nothing_only_scales(kind, shaken, tokens, times):
    network = shaken(kind, dropout=1e-7)
    nothing_dropped = torch.full((6, network.dropout_channels), 0.5)
    with torch.no_grad():
        kept = WithDropout(network, nothing_dropped)(tokens, times, None)
        assert torch.allclose(kept, network(tokens, times), atol=1e-4)


def test_an_example_is_dropped_by_its_own_noise(kind, shaken, tokens, times):
    network = shaken(kind, dropout=0.5)
    uniforms = torch.rand(6, network.dropout_channels, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        first = WithDropout(network, uniforms)(tokens, times, None)
        assert torch.equal(first, WithDropout(network, uniforms)(tokens, times, None))
        uniforms[3] = uniforms[3].flip(0)
        changed = (WithDropout(network, uniforms)(tokens, times, None) - first).abs().amax(dim=(1, 2)) > 1e-4
    assert changed.tolist() == [False, False, False, True, False, False]
    assert (first - network(tokens, times)).abs().max() > 1e-3


def test_every_uniform_drops_something(kind, shaken, tokens, times):
    """None is left over: each, taken alone below the rate, changes the result."""
    network = shaken(kind, dropout=0.01)
    count = network.dropout_channels
    nothing = torch.ones(1, count)
    each = nothing - torch.eye(count)
    with torch.no_grad():
        plain = network(tokens[:1], times[:1], None, nothing)
        dropped = network(tokens[:1].expand(count, -1), times[:1].expand(count), None, each)
    assert ((dropped - plain).abs().amax(dim=(1, 2)) > 1e-6).all()


def test_the_head_is_the_networks_own(kind, shaken):
    network, hidden = shaken(kind), torch.ones(2, 16 if kind == "transformer" else 8)
    assert torch.equal(WithDropout(network, torch.zeros(1, 0)).head(hidden), network.head(hidden))
