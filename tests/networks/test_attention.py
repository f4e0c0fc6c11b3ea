"""Attention: the plain form is the fused one, and a causal one looks back only."""

import math

import pytest
import torch
from torch.nn import functional

from mdpipe.diffusion.noise import Noise
from mdpipe.networks.attention import SMALL, attend
from mdpipe.networks.dropout import keep_mask

LONG = math.isqrt(SMALL // 2)
"""Most positions that two heads attend over by plain products."""


@pytest.mark.parametrize("causal", [False, True])
def test_short_and_long_sequences_take_different_ways_to_the_same_value_and_gradient(causal):
    random = torch.Generator().manual_seed(0)
    for length in (7, LONG, LONG + 1):
        inputs = [torch.randn(1, 2, length, 8, generator=random, requires_grad=True) for _ in range(3)]
        direction = torch.randn(1, 2, length, 8, generator=random)
        results, gradients = [], []
        for result in (
            attend(*inputs, causal=causal),
            functional.scaled_dot_product_attention(*inputs, is_causal=causal),
        ):
            results.append(result)
            gradients.append(torch.autograd.grad((result * direction).sum(), inputs))
        assert torch.allclose(*results, atol=1e-5)
        for ours, reference in zip(*gradients, strict=True):
            assert torch.allclose(ours, reference, atol=1e-5)


@pytest.mark.parametrize("length", [7, LONG + 1])
def test_a_causal_position_is_the_last_of_the_sequence_up_to_it(length):
    """Cut off what comes later, and attention of the last position to all that is left is the same."""
    random = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 1, 2, length, 8, generator=random).unbind()
    mixed = attend(query, key, value, causal=True)
    for end in {1, 2, length // 2, length}:
        alone = attend(*(x[..., :end, :] for x in (query, key, value)))
        assert torch.allclose(mixed[..., end - 1, :], alone[..., -1, :], atol=1e-5)


@pytest.mark.parametrize("spread", [1.0, 10.0])
def test_in_bfloat16_only_what_is_stored_is_rounded(spread):
    """Scores and shares are bfloat16 numbers. Were their sums, too, 300 shares would be off by percents together."""
    random = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 1, 2, 300, 8, generator=random).to(torch.bfloat16).unbind()
    query = query * spread
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    shares = torch.softmax(scores.double(), dim=-1)
    ones = torch.ones_like(value)
    torch.testing.assert_close(attend(query, key, ones), ones, rtol=0, atol=2**-7)
    rounded = (shares.to(torch.bfloat16).double() @ value.double()).to(torch.bfloat16)
    torch.testing.assert_close(attend(query, key, value), rounded, rtol=2**-7, atol=2**-9)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("length", [7, LONG + 1])
def test_single_probabilities_are_dropped_after_the_softmax(length: int, causal: bool) -> None:
    """Each of the L x L of every head for itself, the others scaled; they do not add up to 1 any more."""
    random = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 2, 2, length, 8, generator=random, dtype=torch.float64).unbind()
    keys = Noise(0, "test/dropout").keys(0, torch.arange(2))
    kept = keep_mask(keys, 0.25, 2 * length**2).view(2, 2, length, length)
    scores = query @ key.transpose(-1, -2) / math.sqrt(8)
    if causal:
        scores = scores.masked_fill(torch.ones(length, length, dtype=torch.bool).triu(1), -torch.inf)
    expected = (scores.softmax(dim=-1) * kept / 0.75) @ value
    torch.testing.assert_close(attend(query, key, value, causal=causal, dropout_keys=keys, rate=0.25), expected)
