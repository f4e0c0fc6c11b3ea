"""Attention: both implementations agree, causal attention sees no later position, dropout is that of the mask."""

import math

import pytest
import torch
from torch.nn import functional

from mdpipe.diffusion.rng import CounterRNG
from mdpipe.networks.dropout import dropout_mask
from mdpipe.networks.transformer import MAX_UNFUSED_SCORES, attention

LONG = math.isqrt(MAX_UNFUSED_SCORES // 2)
"""Longest sequence for which two heads use plain matrix products."""


@pytest.mark.parametrize("causal", [False, True])
def test_both_implementations_have_the_same_values_and_gradients(causal):
    random = torch.Generator().manual_seed(0)
    for length in (7, LONG, LONG + 1):
        inputs = [torch.randn(1, 2, length, 8, generator=random, requires_grad=True) for _ in range(3)]
        direction = torch.randn(1, 2, length, 8, generator=random)
        results, gradients = [], []
        for result in (
            attention(*inputs, causal=causal),
            functional.scaled_dot_product_attention(*inputs, is_causal=causal),
        ):
            results.append(result)
            gradients.append(torch.autograd.grad((result * direction).sum(), inputs))
        assert torch.allclose(*results, atol=1e-5)
        for ours, reference in zip(*gradients, strict=True):
            assert torch.allclose(ours, reference, atol=1e-5)


@pytest.mark.parametrize("length", [7, LONG + 1])
def test_causal_attention_equals_attention_of_the_prefix(length):
    """Without the later positions, bidirectional attention of the last position is the same."""
    random = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 1, 2, length, 8, generator=random).unbind()
    causal = attention(query, key, value, causal=True)
    for end in {1, 2, length // 2, length}:
        truncated = attention(*(x[..., :end, :] for x in (query, key, value)))
        assert torch.allclose(causal[..., end - 1, :], truncated[..., -1, :], atol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_bfloat16_rounds_stored_values_but_no_sums(scale):
    """Scores and probabilities are bfloat16; with bfloat16 sums, 300 probabilities would miss 1 by percents."""
    random = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 1, 2, 300, 8, generator=random).to(torch.bfloat16).unbind()
    query = query * scale
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    probs = torch.softmax(scores.double(), dim=-1)
    ones = torch.ones_like(value)
    torch.testing.assert_close(attention(query, key, ones), ones, rtol=0, atol=2**-7)
    rounded = (probs.to(torch.bfloat16).double() @ value.double()).to(torch.bfloat16)
    torch.testing.assert_close(attention(query, key, value), rounded, rtol=2**-7, atol=2**-9)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("length", [7, LONG + 1])
def test_dropout_applies_to_probabilities_after_the_softmax(length: int, causal: bool) -> None:
    """Each of the L x L probabilities of a head is dropped independently; the others are scaled, and not normalized."""
    random = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 2, 2, length, 8, generator=random, dtype=torch.float64).unbind()
    keys = CounterRNG(0, "test/dropout").keys(0, torch.arange(2))
    mask = dropout_mask(keys, 0.25, 2 * length**2).view(2, 2, length, length)
    scores = query @ key.transpose(-1, -2) / math.sqrt(8)
    if causal:
        scores = scores.masked_fill(torch.ones(length, length, dtype=torch.bool).triu(1), -torch.inf)
    expected = (scores.softmax(dim=-1) * mask / 0.75) @ value
    torch.testing.assert_close(
        attention(query, key, value, causal=causal, dropout_keys=keys, dropout_rate=0.25), expected
    )
