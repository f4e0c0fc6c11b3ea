"""The machine that a measurement is made on: what it is, how fast it multiplies, how much memory was taken."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

PRODUCT_EDGE = 2048
"""Rows and columns of the matrices whose product is timed: far out of the caches, yet quick and of 16 MiB each."""

PRODUCTS = 10
"""Products timed, of which the fastest counts."""

PACKAGES = ("mdpipe", "torch", "numpy")
"""What speeds depend on."""


def describe(device: str, threads: int) -> dict[str, Any]:
    """Hardware, versions and the commit of the code, without anything that names one machine among its like."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "threads": threads,
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
        "commit": _commit(),
    }


def product_peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a large square matrix product by as many threads as torch now has: the best of several, warmed up."""
    generator = torch.Generator(device).manual_seed(0)
    left, right = (
        torch.randn(PRODUCT_EDGE, PRODUCT_EDGE, generator=generator, device=device).to(dtype) for _ in range(2)
    )
    seconds = []
    for _ in range(1 + PRODUCTS):
        wait_for(device)
        start = perf_counter()
        left @ right
        wait_for(device)
        seconds.append(perf_counter() - start)
    return 2 * PRODUCT_EDGE**3 / min(seconds[1:])


def wait_for(device: torch.device) -> None:
    """Let a GPU finish what it was given, so that the clock tells what has been done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _commit() -> str | None:
    """The commit of the working tree that this code lies in, marked if changed; None outside of one."""
    command = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None
