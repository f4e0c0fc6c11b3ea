"""Laws of every network: it is a denoiser."""

import pytest
import torch
from torch.nn import functional


def test_hidden_states_and_logits_have_their_shapes(kind, build, tokens, times):
    network = build(kind)
    hidden = network(tokens, times, None)
    assert hidden.shape == (6, 12, {"transformer": 16}.get(kind, 5))
    assert network.head(hidden).shape == (6, 12, 5)
    assert network.vocab_size == 5


@pytest.mark.parametrize("time_conditioning", [False, True])
def test_logits_are_initially_zero(kind, build, tokens, times, time_conditioning):
    """The initial bound is log V exactly."""
    network = build(kind, time_conditioning=time_conditioning)
    assert not network.head(network(tokens, times)).any()


@pytest.mark.parametrize("time_conditioning", [False, True])
def test_every_token_affects_every_position(kind, perturbed, times, time_conditioning):
    network = perturbed(kind, time_conditioning=time_conditioning)
    one = torch.zeros(1, 12, dtype=torch.int64)
    changed = one + torch.eye(12, dtype=torch.int64)
    with torch.no_grad():
        differences = (network(changed, times[:1].expand(12)) - network(one, times[:1])).abs().amax(dim=2)
    assert (differences > 1e-6).all()


def test_examples_are_independent(kind, perturbed, tokens, times):
    network = perturbed(kind, time_conditioning=True)
    with torch.no_grad():
        assert torch.allclose(network(tokens, times)[2:3], network(tokens[2:3], times[2:3]), atol=1e-5)


def test_only_time_conditioned_networks_depend_on_the_time(kind, perturbed, tokens, times):
    for time_conditioning in (False, True):
        network = perturbed(kind, time_conditioning=time_conditioning)
        with torch.no_grad():
            same = torch.equal(network(tokens, times), network(tokens, times.flip(0)))
        assert same is not time_conditioning


def test_close_times_are_distinguished(kind, perturbed, tokens):
    network = perturbed(kind, time_conditioning=True)
    times = torch.tensor([0.500, 0.501], dtype=torch.float64)
    with torch.no_grad():
        first, second = network(tokens[:1].expand(2, -1), times)
    assert (first - second).abs().max() > 1e-4


def test_the_mask_and_all_tokens_differ(kind, perturbed, times):
    network = perturbed(kind)
    with torch.no_grad():
        hidden = network(torch.arange(6)[:, None].expand(6, 12), times)
    assert torch.cdist(hidden.flatten(1), hidden.flatten(1)).add(torch.eye(6)).min() > 1e-3


@pytest.mark.parametrize("time_conditioning", [False, True])
def test_every_weight_gets_a_gradient(kind, perturbed, tokens, times, time_conditioning):
    network = perturbed(kind, time_conditioning=time_conditioning)
    network.head(network(tokens, times)).square().mean().backward()
    idle = [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert idle == []


def test_bfloat16_is_close_to_float32(kind, perturbed, tokens, times):
    """Values and gradients, under autocast; the gradients are float32."""
    network = perturbed(kind, time_conditioning=True)
    results = []
    for enabled in (False, True):
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            logits = network.head(network(tokens, times)).float()
        functional.cross_entropy(logits.flatten(0, 1), tokens.clamp(max=4).flatten()).backward()
        gradient = torch.cat([weight.grad.flatten() for weight in network.parameters()])
        assert gradient.dtype == torch.float32
        results.append((logits.detach(), gradient))
    (exact_logits, exact_gradient), (logits, gradient) = results
    assert (logits - exact_logits).norm() < 0.03 * exact_logits.norm()
    assert (gradient - exact_gradient).norm() < 0.05 * exact_gradient.norm()
    assert not torch.equal(logits, exact_logits)


@pytest.mark.parametrize("time_conditioning", [False, True])
def test_float64_is_close_to_float32(kind, perturbed, tokens, times, time_conditioning):
    network = perturbed(kind, time_conditioning=time_conditioning)
    logits = network.head(network(tokens, times))
    network.double()
    exact = network.head(network(tokens, times.double()))
    assert exact.dtype == torch.float64
    assert 0 < (logits - exact).norm() < 1e-4 * exact.norm()


@pytest.mark.parametrize("time_conditioning", [False, True])
def test_one_batch_is_memorized(kind, build, learn, time_conditioning):
    """Six random examples with half of the tokens masked: from log 5 to below 0.1 nats per masked token."""
    random = torch.Generator().manual_seed(1)
    data = torch.randint(0, 5, (6, 12), generator=random)
    masked = torch.rand(6, 12, generator=random) < 0.5
    losses = learn(build(kind, time_conditioning=time_conditioning), data, masked)
    assert losses[0] == pytest.approx(torch.tensor(5.0).log().item(), rel=1e-6)
    assert losses[-1] < 0.1
