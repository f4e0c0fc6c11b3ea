"""Runtime: float32 stays float32, denormal numbers are flushed on every thread, freed memory stays in the process."""

import json
import os
import platform
import resource
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from mdpipe.networks.runtime import configure_runtime, disable_malloc_trim

pytestmark = pytest.mark.slow

SIZE = 512
"""Size of a square matrix that torch splits among threads."""


def denormal_fractions(configured: bool) -> dict[str, float]:
    """Return the fraction of denormal results, where all would be denormal, on two threads."""
    torch.set_num_threads(2)
    if configured:
        configure_runtime(threads=2)
    # From its bits, because a conversion from a Python float would be flushed.
    denormal = torch.full((SIZE, SIZE), 1 << 20, dtype=torch.int32).view(torch.float32)
    normal = torch.eye(SIZE)
    scores = torch.full((SIZE, SIZE), -95.0)
    scores[:, 0] = 0
    weight = denormal.clone().requires_grad_()
    (weight * 1.0).backward(denormal)
    assert weight.grad is not None
    return {
        "elementwise": denormal_fraction(denormal * 1.0),
        "a matrix product": denormal_fraction(normal @ denormal),
        "softmax": denormal_fraction(scores.softmax(dim=-1)[:, 1:]),
        "a gradient": denormal_fraction(weight.grad),
    }


def denormal_fraction(tensor: Tensor) -> float:
    bits = tensor.contiguous().view(torch.int32)
    return float(((bits != 0) & (bits < 1 << 23)).float().mean())


def float32_error() -> float:
    """Return the largest error of products and their gradients, relative to the products of absolute values.

    The shapes are those of small and of large layers, and of the heads of attention.
    """
    configure_runtime(threads=1)
    random = torch.Generator().manual_seed(0)
    errors = []
    for batch, rows, inner, columns in ((1, 17, 16, 24), (1, 1024, 128, 512), (1, 128, 1024, 1024), (32, 128, 32, 128)):
        left, right = (
            torch.randn(batch, *shape, generator=random, requires_grad=True)
            for shape in ((rows, inner), (inner, columns))
        )
        direction = torch.randn(batch, rows, columns, generator=random)
        a, b, g = (tensor.detach().double() for tensor in (left, right, direction))
        product = left @ right if batch > 1 else (left[0] @ right[0])[None]
        computed = (product, *torch.autograd.grad(product, (left, right), direction))
        for result, x, y in zip(computed, (a, g, a.mT), (b, b.mT, g), strict=True):
            errors.append(((result - x @ y).abs() / (x.abs() @ y.abs())).max().item())
    return max(errors)


def page_faults(trim: bool) -> int:
    """Return the fewest page faults of allocating 192 MiB of tensors whose memory was freed before.

    The minimum over eight runs, because other allocations may occupy part of the freed memory.
    """
    if not trim:
        disable_malloc_trim()

    def count() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        _ = [torch.ones(2**24) for _ in range(3)]
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    return min(count() for _ in range(8))


MEASUREMENTS = {
    "float32 error": float32_error,
    "flushed": lambda: denormal_fractions(True),
    "not flushed": lambda: denormal_fractions(False),
    "no trim": lambda: page_faults(trim=False),
    "trim": lambda: page_faults(trim=True),
}


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    """Return the measurements, each by a fork of a new process, in which no thread has started yet."""
    command = [sys.executable, __file__]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return dict(json.loads(line) for line in done.stdout.splitlines())


def test_products_of_float32_are_not_rounded_to_bfloat16(measured: dict[str, Any]) -> None:
    """Rounded factors, with errors of up to 2^-9, would give errors near 1e-3."""
    assert measured["float32 error"] < 2e-6


@pytest.mark.parametrize(("name", "fraction"), [("flushed", 0.0), ("not flushed", 1.0)])
def test_denormal_numbers_are_flushed_on_every_thread(measured: dict[str, Any], name: str, fraction: float) -> None:
    if not torch.set_flush_denormal(False):
        pytest.skip("this processor cannot flush denormal numbers")
    assert measured[name] == dict.fromkeys(measured[name], fraction)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
def test_freed_memory_is_reused_without_page_faults(measured: dict[str, Any]) -> None:
    assert measured["no trim"] < 1000 < measured["trim"]


if __name__ == "__main__":
    for name, measure in MEASUREMENTS.items():
        if child := os.fork():
            os.waitpid(child, 0)
        else:
            print(json.dumps([name, measure()]), flush=True)
            os._exit(0)
