"""How fast this machine multiplies matrices: what a network's speed is a share of."""

from time import perf_counter

import torch

SMALLEST_EDGE, LARGEST_EDGE = 128, 8192
"""Rows and columns of square matrices. The largest keep a GPU busy for milliseconds, and take 256 MiB in float32."""
LONG_ENOUGH = 0.01
"""Seconds of a product that is large enough: overheads no longer count, and a slow processor is soon done."""
PRODUCTS = 3
"""Products timed of each size, after one that warms up."""


def product_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Return the FLOP/s of the fastest square matrix product, on as many threads as torch now has.

    The matrices grow until a product takes LONG_ENOUGH, so that a processor that emulates the number format, a hundred
    times slower than another, takes no longer to measure: a few tenths of a second.
    """
    edge, best = SMALLEST_EDGE, 0.0
    while True:
        seconds = product_seconds(edge, device, dtype)
        best = max(best, 2 * edge**3 / seconds)
        if seconds >= LONG_ENOUGH or edge >= LARGEST_EDGE:
            return best
        edge *= 2


def product_seconds(edge: int, device: torch.device, dtype: torch.dtype) -> float:
    """Return the time of a product of two matrices with so many rows and columns: the best of several, warmed up."""
    generator = torch.Generator(device).manual_seed(0)
    left, right = (torch.randn(edge, edge, generator=generator, device=device).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(1 + PRODUCTS):
        wait_for(device)
        start = perf_counter()
        left @ right
        wait_for(device)
        seconds.append(perf_counter() - start)
    return min(seconds[1:])


def bfloat16_problem(device: torch.device) -> str:
    """Say that products in bfloat16 are slower than in float32 on the device; return an empty string if they are not.

    It is measured, since no list of features tells: processors without such products emulate them, some a hundred times
    slower than float32, and ONEDNN_MAX_CPU_ISA can hide what one has.
    """
    rate, float32_rate = (product_peak(device, dtype) / 1e9 for dtype in (torch.bfloat16, torch.float32))
    if rate >= float32_rate:
        return ""
    return (
        f"precision: bfloat16 is slow on this machine, which multiplies matrices at {rate:,.3g} GFLOP/s in bfloat16 and"
        f" at {float32_rate:,.3g} in float32; consider precision: float32"
    )


def wait_for(device: torch.device) -> None:
    """Let a GPU finish what it was given, so that the clock tells what has been done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
