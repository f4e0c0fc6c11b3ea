"""Runtime: denormal numbers are flushed on every thread, and freed memory stays in the process."""

import platform
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
import torch
from torch import Tensor

from mdpipe.networks.runtime import set_determinism

pytestmark = pytest.mark.slow

SIZE = 512
"""Size of a square matrix that torch splits among threads."""


def denormal_fractions(deterministic: bool) -> dict[str, float]:
    """Return the fraction of denormal results, where all would be denormal, on two threads."""
    torch.set_num_threads(2)
    if deterministic:
        set_determinism(threads=2)
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


@pytest.mark.parametrize("deterministic", [True, False])
def test_denormal_numbers_are_flushed_on_every_thread(deterministic: bool) -> None:
    """In a new process, in which no thread has started yet."""
    if not torch.set_flush_denormal(False):
        pytest.skip("this processor cannot flush denormal numbers")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        fractions = process.submit(denormal_fractions, deterministic).result()
    assert fractions == dict.fromkeys(fractions, 0.0 if deterministic else 1.0)


PAGE_COUNT = """
import resource, sys, torch
from mdpipe.networks.runtime import disable_malloc_trim

if sys.argv[1] == "no trim":
    disable_malloc_trim()

def pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [torch.ones(2**24) for _ in range(3)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(min(pages() for _ in range(8)))
"""
"""Program that prints the fewest page faults of allocating 192 MiB of tensors whose memory was freed before.

The minimum over eight runs, because other allocations may occupy part of the freed memory."""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
def test_freed_memory_is_reused_without_page_faults() -> None:
    faults = {
        mode: int(
            subprocess.run([sys.executable, "-c", PAGE_COUNT, mode], capture_output=True, text=True, check=True).stdout
        )
        for mode in ("no trim", "default")
    }
    assert faults["no trim"] < 1000 < faults["default"]
