"""Speed and memory: torch.compile, activation checkpointing, FLOPs, the machine's matmul peak and peak memory."""

import logging
import math
import os
from copy import deepcopy
from functools import partial
from time import perf_counter
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from mdpipe.diffusion.objectives.base import Objective
from mdpipe.networks.base import Network, get_blocks
from mdpipe.params.training import HardwareConfig
from mdpipe.processes import MEBIBYTE, peak_rss_mib

MIN_EDGE, MAX_EDGE = 128, 8192
"""Rows and columns of the square matrices. The largest take milliseconds on a GPU and 256 MiB in float32."""
MIN_SECONDS = 0.01
"""Duration of a matmul that is large enough: overhead is negligible, and a slow processor is done soon."""
NUM_TIMED = 3
"""Matmuls timed per size, after one warm-up."""

logger = logging.getLogger(__name__)


def apply_compile_and_checkpointing(network: nn.Module, objective: Objective, hardware: HardwareConfig) -> None:
    """Apply activation checkpointing and torch.compile to network and objective, as `hardware` says.

    They only change floating-point rounding. If no compiler works, a warning is logged and both run uncompiled. Layers
    are compiled one by one, since equal layers share their code, and once per shape, since a run has one or two shapes.
    The token losses are compiled for any number of tokens, because the number of masked tokens varies.
    """
    if hardware.activation_checkpointing:
        for layer in get_blocks(network):
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)
    if hardware.compile:
        # torch.compile's cache, in the folder for temporary files or TORCHINDUCTOR_CACHE_DIR, tells vector instructions
        # apart only when it runs a C++ compiler. The code itself has loops for one vector length: code for AVX-512
        # computes wrong numbers with AVX2, on another machine that shares the folder or after ATEN_CPU_CAPABILITY has
        # changed. The tag restricts the cache to code for the instructions of this process.
        tag = os.environ.get("TORCH_COMPILE_CACHE_KEY_TAG", "")
        torch.compiler.config.cache_key_tag = f"{tag}{torch.backends.cpu.get_cpu_capability()}"
        if problem := find_compiler_problem(next(network.parameters()).device):
            logger.warning("hardware.compile is ignored, because no compiler works here: %s", problem)
            return
        # Tell the compiler that kernels must be deterministic, if they already are.
        torch.use_deterministic_algorithms(torch.are_deterministic_algorithms_enabled())
        for layer in get_blocks(network):
            layer.compile(dynamic=False)
        objective.token_loss = torch.compile(objective.token_loss, dynamic=True)  # type: ignore[method-assign]


def find_compiler_problem(device: torch.device) -> str:
    """Compile a trivial function and return the first line of the error, or an empty string if it works."""
    try:
        torch.compile(torch.sin)(torch.ones(2, device=device))
    except Exception as error:
        return (str(error).strip() or type(error).__name__).splitlines()[0]
    return ""


def measure_peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Return the FLOP/s of the fastest square matmul, on the current number of threads.

    The matrices grow until a matmul takes MIN_SECONDS. A processor that emulates the number format, a hundred times
    slower than another, therefore takes no longer to measure: a few tenths of a second.
    """
    edge, best = MIN_EDGE, 0.0
    while True:
        seconds = time_matmul(edge, device, dtype)
        best = max(best, 2 * edge**3 / seconds)
        if seconds >= MIN_SECONDS or edge >= MAX_EDGE:
            return best
        edge *= 2


def time_matmul(edge: int, device: torch.device, dtype: torch.dtype) -> float:
    """Return the seconds of a matmul of two matrices with `edge` rows and columns: the best of several, warmed up."""
    generator = torch.Generator(device).manual_seed(0)
    left, right = (torch.randn(edge, edge, generator=generator, device=device).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(1 + NUM_TIMED):
        synchronize(device)
        start = perf_counter()
        left @ right
        synchronize(device)
        seconds.append(perf_counter() - start)
    return min(seconds[1:])


def find_bfloat16_problem(device: torch.device) -> str:
    """Return a warning if bfloat16 matmuls are slower than float32 on the device, otherwise an empty string.

    It is measured, because no list of CPU features is reliable: some processors emulate bfloat16 a hundred times slower
    than float32, and ONEDNN_MAX_CPU_ISA can hide a feature.
    """
    rate, float32_rate = (measure_peak_flops(device, dtype) / 1e9 for dtype in (torch.bfloat16, torch.float32))
    if rate >= float32_rate:
        return ""
    return (
        f"precision: bfloat16 is slow on this machine: its matmuls reach {rate:,.3g} GFLOP/s in bfloat16 and"
        f" {float32_rate:,.3g} in float32; consider precision: float32"
    )


def get_peak_memory_mib(device: torch.device) -> float:
    """Return the peak memory in MiB: allocated by tensors on a GPU, resident set size of the process on a CPU.

    Both are high-water marks since the process started; separate measurements need separate processes.
    """
    return torch.cuda.max_memory_allocated(device) / MEBIBYTE if device.type == "cuda" else peak_rss_mib()


def synchronize(device: torch.device) -> None:
    """Wait for the GPU to finish its queued work; do nothing on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


BACKWARD = 2
"""A product's gradient takes two products of its size, one for each factor."""
ONCE_PER_EXAMPLE = ("conditioning", "modulation")
"""Parts of the names of linear layers that are applied to the conditioning vector; all others run at every position."""


def training_flops(network: Network, length: int) -> int:
    """Return the operations of a forward and a backward pass of one example, with the head at every position.

    A head that runs at masked positions only is thus credited with what it saves.
    """
    return (1 + BACKWARD) * forward_flops(network, length)


def forward_flops(network: Network, length: int) -> int:
    """Return the operations of a forward pass of one example of `length` tokens, with the head at every position.

    A linear layer takes 2 operations per weight and position, a convolution 2 per weight and pixel, and attention among
    P positions 4 P^2 D for its two products.
    """
    # Not an inherited one, since a subclass may compute something else.
    size = network.attention_size(length) if "attention_size" in vars(type(network)) else None
    if size is None:
        return forward_flops_by_torch(network, length)
    positions, attention_width = size
    flops = 4 * positions**2 * attention_width
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear):
            is_once = any(part in name for part in ONCE_PER_EXAMPLE)
            flops += 2 * module.weight.numel() * (1 if is_once else positions)
        elif isinstance(module, nn.Conv2d):
            flops += 2 * module.weight.numel() * length // math.prod(network.shape[2:])
    return flops


def forward_flops_by_torch(network: Network, length: int) -> int:
    """Return the same as `forward_flops` for any network, by running a copy on the meta device."""
    from torch.utils.flop_counter import FlopCounterMode

    shapes: Any = deepcopy(network).to("meta")
    tokens = torch.zeros(1, length, dtype=torch.int64, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        shapes.head(shapes(tokens, torch.zeros(1, device="meta")))
    forward: int = counter.get_total_flops()
    return forward
