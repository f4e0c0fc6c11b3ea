"""The processes that train a run together: who this one is, which rows of a batch are its own, and how it joins.

Rows have global indices and all noise is keyed by them, so that what is computed does not depend on how many processes
compute it; only the order of sums does.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed

LOCAL_RANK, WORLD_SIZE = "LOCAL_RANK", "WORLD_SIZE"
"""Variables that torchrun, and `launch`, set for each process; other launchers leave them behind in a shell."""


@dataclass(frozen=True)
class World:
    """Which of the run's processes this one is."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether it is the one that writes files and reports."""
        return self.rank == 0

    def rows(self, batch_size: int, micro_batches: int) -> list[range]:
        """Global indices of its share of a batch, in the parts that it takes one after another."""
        part = batch_size // (self.size * micro_batches)
        first = self.rank * part * micro_batches
        return [range(start, start + part) for start in range(first, first + part * micro_batches, part)]

    def wait_for_all(self) -> None:
        """Return when all have called this."""
        if self.size > 1:
            distributed.barrier()

    def largest(self, *numbers: int) -> list[int]:
        """The largest of each of the numbers that all processes call this with.

        They are exchanged by way of the CPUs, so no GPU is waited for.
        """
        if self.size == 1:
            return list(numbers)
        shared = torch.tensor(numbers)
        distributed.all_reduce(shared, distributed.ReduceOp.MAX)
        return shared.tolist()


@contextmanager
def joined() -> Iterator[World]:
    """The world that torchrun's variables describe, with torch's process group: NCCL on GPUs, gloo on CPUs.

    Each process has a GPU of its own, the one that `cuda` then means. A process that torchrun has not started is alone,
    whatever RANK and WORLD_SIZE another launcher has left in the environment.
    """
    if not distributed.is_torchelastic_launched():
        yield World()
        return
    device = None
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ[LOCAL_RANK]))
        torch.cuda.set_device(device)
    backend = "gloo" if device is None else "cpu:gloo,cuda:nccl"
    distributed.init_process_group(backend, device_id=device)
    try:
        yield World(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()
