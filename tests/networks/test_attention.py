"""Attention: the plain form is the fused one."""

import torch
from torch.nn import functional

from mdpipe.networks.attention import SHORT, attend


def test_short_and_long_sequences_take_different_ways_to_the_same_value_and_gradient():
    random = torch.Generator().manual_seed(0)
    for length in (7, SHORT, SHORT + 1):
        inputs = [torch.randn(1, 2, length, 8, generator=random, requires_grad=True) for _ in range(3)]
        direction = torch.randn(1, 2, length, 8, generator=random)
        results, gradients = [], []
        for function in (attend, functional.scaled_dot_product_attention):
            results.append(function(*inputs))
            gradients.append(torch.autograd.grad((results[-1] * direction).sum(), inputs))
        assert torch.allclose(*results, atol=1e-5)
        for ours, reference in zip(*gradients, strict=True):
            assert torch.allclose(ours, reference, atol=1e-5)
