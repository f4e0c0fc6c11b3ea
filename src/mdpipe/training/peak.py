"""How fast this machine multiplies matrices: what a network's speed is a share of."""

from time import perf_counter

import torch

EDGE = 2048
"""Rows and columns of the matrices whose product is timed: far out of a CPU's caches, yet quick and of 16 MiB each."""

PRODUCTS = 10
"""Products timed, of which the fastest counts."""


def product_peak(device: torch.device, dtype: torch.dtype, edge: int = EDGE, products: int = PRODUCTS) -> float:
    """FLOP/s of a large square matrix product by as many threads as torch now has: the best of several, warmed up."""
    generator = torch.Generator(device).manual_seed(0)
    left, right = (torch.randn(edge, edge, generator=generator, device=device).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(1 + products):
        wait_for(device)
        start = perf_counter()
        left @ right
        wait_for(device)
        seconds.append(perf_counter() - start)
    return 2 * edge**3 / min(seconds[1:])


def wait_for(device: torch.device) -> None:
    """Let a GPU finish what it was given, so that the clock tells what has been done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
