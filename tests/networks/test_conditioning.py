"""Conditioning on classes: what a network does with the class, and what it refuses."""

import pytest
import torch

from mdpipe.diffusion.noise import Noise
from mdpipe.networks.conditioning import Conditioning
from mdpipe.networks.dropout import DenoiserWithDropout

CLASSES = 5
LABELS = torch.arange(CLASSES + 1)
"""All there are, "no class" included: one an example."""

with_and_without_time = pytest.mark.parametrize("time_conditioning", [False, True])


@with_and_without_time
def test_each_class_makes_other_hidden_states_and_so_does_none(kind, shaken, tokens, times, time_conditioning):
    network = shaken(kind, classes=CLASSES, time_conditioning=time_conditioning)
    with torch.no_grad():
        hidden = network(tokens[:1].expand(6, -1), times[:1].expand(6), LABELS).flatten(1)
    assert torch.cdist(hidden, hidden).add(torch.eye(6)).min() > 1e-3


@with_and_without_time
def test_no_condition_means_no_class_for_every_example(kind, shaken, tokens, times, time_conditioning):
    network = shaken(kind, classes=CLASSES, time_conditioning=time_conditioning)
    with torch.no_grad():
        assert torch.equal(network(tokens, times), network(tokens, times, torch.full((6,), CLASSES)))


def test_a_label_tells_on_its_own_example_alone(kind, shaken, tokens, times):
    network, changed = shaken(kind, classes=CLASSES), LABELS.clone()
    changed[2] = 4
    with torch.no_grad():
        differences = (network(tokens, times, changed) - network(tokens, times, LABELS)).abs().amax(dim=(1, 2))
    assert (differences > 1e-4).tolist() == [False, False, True, False, False, False]


def test_the_time_still_tells_beside_the_class(kind, shaken, tokens, times):
    for time_conditioning in (False, True):
        network = shaken(kind, classes=CLASSES, time_conditioning=time_conditioning)
        with torch.no_grad():
            same = torch.equal(network(tokens, times, LABELS), network(tokens, times.flip(0), LABELS))
        assert same is not time_conditioning


@with_and_without_time
def test_the_class_does_nothing_at_the_start(kind, build, tokens, times, time_conditioning):
    network = build(kind, classes=CLASSES, time_conditioning=time_conditioning)
    hidden = network(tokens, times, LABELS)
    assert torch.equal(hidden, network(tokens, times, LABELS.flip(0)))
    assert not network.head(hidden).any()


@with_and_without_time
def test_every_weight_gets_a_gradient_and_every_class_its_own(kind, shaken, tokens, times, time_conditioning):
    network = shaken(kind, classes=CLASSES, time_conditioning=time_conditioning)
    network.head(network(tokens, times, LABELS)).square().mean().backward()
    idle = [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert idle == []
    assert network.conditioning.classes.weight.grad.any(dim=1).all()


def test_a_step_with_dropout_is_told_the_class_too(kind, shaken, tokens, times):
    network = shaken(kind, classes=CLASSES, dropout=0.5)
    step = DenoiserWithDropout(network, Noise(0, "test").keys(0, torch.arange(6)))
    with torch.no_grad():
        assert (step(tokens, times, LABELS) - step(tokens, times, None)).abs().amax(dim=(1, 2))[:CLASSES].min() > 1e-4


@with_and_without_time
def test_what_the_class_alone_tells_is_learnt_by_heart(kind, build, learn, time_conditioning):
    """Six examples with the same six tokens shown; the class decides which letter fills the six that are hidden."""
    network = build(kind, width=8, classes=CLASSES, time_conditioning=time_conditioning)
    hidden = (torch.arange(12) % 2 == 0).expand(6, 12)
    data = torch.where(hidden, LABELS[:, None] % 5, torch.arange(12) // 2 % 5)
    losses = learn(network, data, hidden, LABELS)
    assert losses[0] == pytest.approx(torch.tensor(5.0).log().item(), rel=1e-6)
    assert losses[-1] < 0.1


def test_a_condition_for_a_network_without_classes_is_refused(kind, build, tokens, times):
    with pytest.raises(ValueError, match="a network built with classes = 0 takes no condition"):
        build(kind)(tokens, times, LABELS)


@pytest.mark.parametrize("outside", [-1, 6, 2**40])
def test_a_label_that_is_no_class_is_refused_with_those_there_are(kind, build, tokens, times, outside):
    labels = LABELS.clone()
    labels[3] = outside
    with pytest.raises(ValueError, match=rf"labels from .*{outside}.* built with classes = 5 takes 0 to 5"):
        build(kind, classes=CLASSES)(tokens, times, labels)


@pytest.mark.parametrize("condition", [LABELS.float(), LABELS.int(), LABELS[:1], LABELS[:, None]])
def test_a_condition_that_is_not_a_label_an_example_is_refused(kind, build, tokens, times, condition):
    with pytest.raises(ValueError, match=r"it must be one int64 label for each of the 6 examples"):
        build(kind, classes=CLASSES)(tokens, times, condition)


def test_the_class_vector_is_appended_to_the_sinusoids_and_without_time_is_the_conditioning(tokens, times):
    """As CondEmbedding of the official implementation: [sin, cos, class] through two layers, and nothing after them."""
    width = 8
    timed, untimed = (Conditioning(width, time_conditioning=on, num_classes=CLASSES) for on in (True, False))
    with torch.no_grad():
        assert torch.equal(untimed(tokens, times, LABELS), untimed.classes.weight)
        frequencies = torch.tensor([10_000 ** (-k / 3) for k in range(4)])
        angles = 1000 * times.float()[:, None] * frequencies
        joined = torch.cat([angles.sin(), angles.cos(), timed.classes.weight], dim=1)
        expected = timed.time.output(torch.nn.functional.silu(timed.time.input(joined)))
        torch.testing.assert_close(timed(tokens, times, LABELS), expected, rtol=1e-3, atol=1e-4)
    assert Conditioning(width, time_conditioning=False, num_classes=0)(tokens, times, None) is None
