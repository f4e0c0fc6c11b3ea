"""Label dropout: the right fraction of labels, as a function of the step and the row."""

import torch

from mdpipe.diffusion.rng import CounterRNG
from mdpipe.training.loop import drop_labels
from tests.diffusion.statistical_tests import FALSE_ALARM, chi_square_chance

CLASSES = 10
NOISE = CounterRNG(0, "train")


def test_labels_are_dropped_with_the_given_probability():
    labels = torch.arange(20_000) % CLASSES
    shown = drop_labels(labels, 0.1, CLASSES, NOISE, 0, range(20_000))
    dropped = shown == CLASSES
    assert torch.equal(shown[~dropped], labels[~dropped])
    counts = torch.tensor([dropped.sum(), (~dropped).sum()])
    assert chi_square_chance(counts, torch.tensor([2_000.0, 18_000.0])) > FALSE_ALARM


def test_dropped_labels_depend_on_the_step_only():
    labels = torch.zeros(1000, dtype=torch.int64)
    first, again, later = (drop_labels(labels, 0.5, CLASSES, NOISE, step, range(len(labels))) for step in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, later)


def test_probability_zero_drops_no_label():
    labels = torch.arange(1000) % CLASSES
    assert torch.equal(drop_labels(labels, 0.0, CLASSES, NOISE, 3, range(len(labels))), labels)
