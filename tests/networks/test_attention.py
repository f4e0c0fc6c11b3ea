"""Attention: both implementations agree, causal attention sees no later position, dropout is that of the mask."""

import math

import pytest
import torch
from torch.nn import functional

from mdpipe.diffusion.rng import CounterRNG
from mdpipe.networks.dropout import dropout_mask
from mdpipe.networks.runtime import ONEDNN_IS_FASTER
from mdpipe.networks.transformer import MAX_UNFUSED_SCORES, attention

LONG = math.isqrt(MAX_UNFUSED_SCORES // 2)
"""Longest sequence for which two heads train with plain matrix products in bfloat16 on a CPU."""

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2**-6}


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_both_implementations_have_the_same_values_and_gradients(dtype, causal):
    random = torch.Generator().manual_seed(0)
    for length in (7, 96, LONG) if dtype == torch.float32 else (7, 96):
        inputs = [torch.randn(1, 2, length, 8, generator=random).to(dtype).requires_grad_() for _ in range(3)]
        direction = torch.randn(1, 2, length, 8, generator=random)
        exact = [x.detach().double().requires_grad_() for x in inputs]
        results, gradients = [], []
        for result, args in (
            (attention(*inputs, causal=causal), inputs),
            (functional.scaled_dot_product_attention(*exact, is_causal=causal), exact),
        ):
            results.append(result.double())
            gradients.append(torch.autograd.grad((result * direction).sum(), args))
        torch.testing.assert_close(*results, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
        for ours, reference in zip(*gradients, strict=True):
            torch.testing.assert_close(ours.double(), reference, rtol=4 * TOLERANCE[dtype], atol=4 * TOLERANCE[dtype])


@pytest.mark.parametrize(
    ("dtype", "trains", "length", "is_fused"),
    [
        (torch.float32, True, 7, not ONEDNN_IS_FASTER),
        (torch.float32, False, LONG, not ONEDNN_IS_FASTER),
        (torch.float32, True, LONG + 1, True),
        (torch.bfloat16, False, 7, True),
        (torch.bfloat16, True, LONG, False),
        (torch.bfloat16, True, LONG + 1, True),
    ],
)
def test_plain_products_are_used_where_they_are_faster(dtype, trains, length, is_fused, monkeypatch):
    calls = []
    monkeypatch.setattr(functional, "scaled_dot_product_attention", lambda *inputs, **_: calls.append(1) or inputs[0])
    inputs = [torch.zeros(1, 2, length, 8, dtype=dtype, requires_grad=trains) for _ in range(3)]
    attention(*inputs)
    assert bool(calls) == is_fused


@pytest.mark.parametrize("length", [7, LONG + 1])
def test_causal_attention_equals_attention_of_the_prefix(length):
    """Without the later positions, bidirectional attention of the last position is the same."""
    random = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 1, 2, length, 8, generator=random).unbind()
    causal = attention(query, key, value, causal=True)
    for end in {1, 2, length // 2, length}:
        truncated = attention(*(x[..., :end, :] for x in (query, key, value)))
        assert torch.allclose(causal[..., end - 1, :], truncated[..., -1, :], atol=1e-5)


@pytest.mark.parametrize("trains", [False, True])
@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_bfloat16_rounds_stored_values_but_no_sums(scale, trains):
    """With bfloat16 sums, 300 probabilities would miss 1 by percents. Plain products also store the scores."""
    random = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 1, 2, 300, 8, generator=random).to(torch.bfloat16).unbind()
    query = (query * scale).requires_grad_(trains)
    if trains:
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    else:
        scores = query.double() @ key.double().transpose(-1, -2) * query.shape[-1] ** -0.5
    probs = torch.softmax(scores.double(), dim=-1)
    ones = torch.ones_like(value)
    torch.testing.assert_close(attention(query, key, ones), ones, rtol=0, atol=2**-7)
    rounded = (probs.to(torch.bfloat16).double() @ value.double()).to(torch.bfloat16)
    torch.testing.assert_close(attention(query, key, value), rounded, rtol=2**-7, atol=2**-8)


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
