"""DDP and FSDP2 in a group of one process: they must train what a process without a group trains on a CPU."""

import os
import socket

import torch

from mdpipe.benchmarks.gpu.correctness import Variant, compare, record_trace
from mdpipe.benchmarks.gpu.part import Report, free_memory
from mdpipe.training.acceleration import compiler_problem
from mdpipe.training.world import LOCAL_RANK, WORLD_SIZE, joined

STRATEGIES = ("ddp", "fsdp")


def run(report: Report) -> None:
    """Compare each strategy, in float32 and eager, then as presets for several GPUs train: compiled, in bfloat16."""
    checks, device, threads = report.sizes.checks, report.device, report.sizes.threads
    references = {name: record_trace(check, Variant(), torch.device("cpu"), threads) for name, check in checks.items()}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {WORLD_SIZE: "1", "RANK": "0", LOCAL_RANK: "0", "TORCHELASTIC_RUN_ID": "none"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with joined() as world:
        for name, check in checks.items():
            for strategy in STRATEGIES:
                labels = {"check": name, "variant": f"float32, {strategy}"}
                compare(report, labels, check, Variant(strategy=strategy), references[name], world)
        if not report.sizes.compile or compiler_problem(device):
            return
        for strategy in STRATEGIES:
            free_memory()
            name, variant = "transformer, md4", Variant("bfloat16", compile=True, strategy=strategy)
            labels = {"check": name, "variant": f"bfloat16, compiled, {strategy}"}
            compare(report, labels, checks[name], variant, references[name], world, seconds=10)
