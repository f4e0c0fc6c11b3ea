"""Conditioning on classes: the effect of the class on a network, and the labels that are errors."""

import pytest
import torch

from mdpipe.diffusion.rng import CounterRNG
from mdpipe.networks.base import DenoiserWithDropout
from mdpipe.networks.layers import Conditioning

pytestmark = pytest.mark.slow

NUM_CLASSES = 5
LABELS = torch.arange(NUM_CLASSES + 1)
"""All labels, including "no class", one per example."""

with_and_without_time = pytest.mark.parametrize("time_conditioning", [False, True])


@with_and_without_time
def test_every_label_has_different_hidden_states(kind, perturbed, tokens, times, time_conditioning):
    network = perturbed(kind, num_classes=NUM_CLASSES, time_conditioning=time_conditioning)
    with torch.no_grad():
        hidden = network(tokens[:1].expand(6, -1), times[:1].expand(6), LABELS).flatten(1)
    assert torch.cdist(hidden, hidden).add(torch.eye(6)).min() > 1e-3


@with_and_without_time
def test_no_labels_mean_no_class_for_every_example(kind, perturbed, tokens, times, time_conditioning):
    network = perturbed(kind, num_classes=NUM_CLASSES, time_conditioning=time_conditioning)
    with torch.no_grad():
        assert torch.equal(network(tokens, times), network(tokens, times, torch.full((6,), NUM_CLASSES)))


def test_a_label_affects_only_its_own_example(kind, perturbed, tokens, times):
    network, changed = perturbed(kind, num_classes=NUM_CLASSES), LABELS.clone()
    changed[2] = 4
    with torch.no_grad():
        differences = (network(tokens, times, changed) - network(tokens, times, LABELS)).abs().amax(dim=(1, 2))
    assert (differences > 1e-4).tolist() == [False, False, True, False, False, False]


def test_time_conditioning_works_together_with_classes(kind, perturbed, tokens, times):
    for time_conditioning in (False, True):
        network = perturbed(kind, num_classes=NUM_CLASSES, time_conditioning=time_conditioning)
        with torch.no_grad():
            same = torch.equal(network(tokens, times, LABELS), network(tokens, times.flip(0), LABELS))
        assert same is not time_conditioning


@with_and_without_time
def test_the_class_initially_has_no_effect(kind, build, tokens, times, time_conditioning):
    network = build(kind, num_classes=NUM_CLASSES, time_conditioning=time_conditioning)
    hidden = network(tokens, times, LABELS)
    assert torch.equal(hidden, network(tokens, times, LABELS.flip(0)))
    assert not network.head(hidden).any()


@with_and_without_time
def test_every_weight_and_every_class_gets_a_gradient(kind, perturbed, tokens, times, time_conditioning):
    network = perturbed(kind, num_classes=NUM_CLASSES, time_conditioning=time_conditioning)
    network.head(network(tokens, times, LABELS)).square().mean().backward()
    idle = [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert idle == []
    assert network.conditioning.classes.weight.grad.any(dim=1).all()


def test_a_denoiser_with_dropout_passes_the_class_on(kind, perturbed, tokens, times):
    network = perturbed(kind, num_classes=NUM_CLASSES, dropout=0.5)
    step = DenoiserWithDropout(network, CounterRNG(0, "test").keys(0, torch.arange(6)))
    with torch.no_grad():
        differences = (step(tokens, times, LABELS) - step(tokens, times, None)).abs().amax(dim=(1, 2))
    assert differences[:NUM_CLASSES].min() > 1e-4


@with_and_without_time
def test_tokens_that_only_the_class_determines_are_learned(kind, build, learn, time_conditioning):
    """Six examples show the same six tokens; the class determines the six masked ones."""
    network = build(kind, hidden_size=8, num_classes=NUM_CLASSES, time_conditioning=time_conditioning)
    masked = (torch.arange(12) % 2 == 0).expand(6, 12)
    data = torch.where(masked, LABELS[:, None] % 5, torch.arange(12) // 2 % 5)
    losses = learn(network, data, masked, LABELS)
    assert losses[0] == pytest.approx(torch.tensor(5.0).log().item(), rel=1e-6)
    assert losses[-1] < 0.1


def test_labels_for_a_network_without_classes_are_an_error(kind, build, tokens, times):
    with pytest.raises(ValueError, match="a network built with num_classes = 0 takes no class labels"):
        build(kind)(tokens, times, LABELS)


@pytest.mark.parametrize("outside", [-1, 6, 2**40])
def test_a_label_out_of_range_is_an_error_with_the_range(kind, build, tokens, times, outside):
    labels = LABELS.clone()
    labels[3] = outside
    with pytest.raises(ValueError, match=rf"labels range from .*{outside}.* built with num_classes = 5 takes 0 to 5"):
        build(kind, num_classes=NUM_CLASSES)(tokens, times, labels)


@pytest.mark.parametrize("labels", [LABELS.float(), LABELS.int(), LABELS[:1], LABELS[:, None]])
def test_labels_of_wrong_shape_or_dtype_are_an_error(kind, build, tokens, times, labels):
    with pytest.raises(ValueError, match=r"they must be int64 \(6,\), one label per example"):
        build(kind, num_classes=NUM_CLASSES)(tokens, times, labels)


def test_conditioning_vector_is_that_of_the_official_networks(tokens, times):
    """Like CondEmbedding of the official implementation: [sin, cos, class] through two layers, no activation after."""
    width = 8
    timed, untimed = (Conditioning(width, time_conditioning=on, num_classes=NUM_CLASSES) for on in (True, False))
    with torch.no_grad():
        assert torch.equal(untimed(tokens, times, LABELS), untimed.classes.weight)
        frequencies = torch.tensor([10_000 ** (-k / 3) for k in range(4)])
        angles = 1000 * times.float()[:, None] * frequencies
        features = torch.cat([angles.sin(), angles.cos(), timed.classes.weight], dim=1)
        expected = timed.time.down_proj(torch.nn.functional.silu(timed.time.up_proj(features)))
        torch.testing.assert_close(timed(tokens, times, LABELS), expected, rtol=1e-3, atol=1e-4)
    assert Conditioning(width, time_conditioning=False, num_classes=0)(tokens, times, None) is None
