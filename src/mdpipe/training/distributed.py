"""The processes of a training run: signals, the launcher, the process group, DDP and FSDP2, collectives and shards.

Rows of a batch have global indices that key all randomness, so the number of processes changes only the order of sums.

SIGTERM or SIGUSR1, from a scheduler before it takes the machine away, and Ctrl-C interrupt gracefully: the current step
is finished and a checkpoint written, from which the same command resumes.
"""

import os
import signal
import socket
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType
from typing import TYPE_CHECKING, TypeGuard, cast

import torch
from torch import Tensor, distributed, nn
from torch.distributed import DistStoreError
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous.api import RendezvousTimeoutError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from mdpipe.params.training import HardwareConfig

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

    # Importing them takes seconds, which only a run with FSDP2 should pay.
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.tensor import DTensor


LOCAL_RANK, WORLD_SIZE = "LOCAL_RANK", "WORLD_SIZE"
"""Variables that torchrun and `launch` set for each process; other launchers leave them behind in a shell."""

NUM_NODES, RDZV_ENDPOINT, RDZV_ID = "PET_NNODES", "PET_RDZV_ENDPOINT", "PET_RDZV_ID"
"""torchrun's variables for several machines."""
SIGNALS_TO_HANDLE = "TORCHELASTIC_SIGNALS_TO_HANDLE"
MONITOR_SECONDS = 0.1
JOIN_SECONDS = 600
"""Seconds that the first machine waits for the others; torchrun's default."""
START_SECONDS = 300
"""Seconds that a process waits for the others, once their machines have found each other. Loading torch from a slow
file system takes a minute; torch itself would wait for half an hour."""

EXIT_REQUEUE = 75
"""Exit status after SIGTERM and SIGUSR1: EX_TEMPFAIL. workflow/job.py then runs the stage again."""

EXIT_INTERRUPTED = 130
"""Exit status after Ctrl-C, as in a shell. The stage is not run again, since a person has stopped it."""

EXIT_STATUS = {signal.SIGTERM: EXIT_REQUEUE, signal.SIGUSR1: EXIT_REQUEUE, signal.SIGINT: EXIT_INTERRUPTED}


class InterruptedTrainingError(Exception):
    """Training was interrupted by a signal before its last step; its checkpoint is written.

    `status` is the exit status of the process.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class SignalState:
    """The exit status for the first signal received, or 0 if none was received."""

    status: int = 0


@contextmanager
def handle_signals() -> Iterator[SignalState]:
    """Record the first signal within the block instead of ending; a second Ctrl-C ends the process at once.

    Do nothing outside the main thread, which gets no signals.
    """
    state = SignalState()
    if threading.current_thread() is not threading.main_thread():
        yield state
        return

    def record(number: int, _: FrameType | None) -> None:
        state.status = state.status or EXIT_STATUS[signal.Signals(number)]
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, record) for number in EXIT_STATUS}
    try:
        yield state
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(frozen=True)
class World:
    """Rank of the current process and number of processes."""

    rank: int = 0
    size: int = 1

    @property
    def is_main_process(self) -> bool:
        """Return True on rank 0, which writes files and logs."""
        return self.rank == 0

    def local_rows(self, batch_size: int, gradient_accumulation_steps: int) -> list[range]:
        """Return the global indices of this process's rows, one range per micro-batch."""
        size = batch_size // (self.size * gradient_accumulation_steps)
        first = self.rank * size * gradient_accumulation_steps
        return [range(start, start + size) for start in range(first, first + size * gradient_accumulation_steps, size)]

    def barrier(self) -> None:
        """Wait until all processes have called this."""
        if self.size > 1:
            distributed.barrier()

    def all_reduce_max(self, *numbers: int) -> list[int]:
        """Return the maximum of each number over all ranks (over gloo, without synchronizing the GPU)."""
        if self.size == 1:
            return list(numbers)
        maxima = torch.tensor(numbers)
        distributed.all_reduce(maxima, distributed.ReduceOp.MAX)
        return maxima.tolist()

    def all_reduce_mean(self, value: Tensor) -> Tensor:
        """Return the mean of a scalar over all ranks, on its device."""
        if self.size > 1:
            distributed.all_reduce(value)
            value = value / self.size
        return value


def launch(num_processes: int, command: Sequence[str]) -> None:
    """Run the command in `num_processes` processes with torchrun's API and wait for those on this machine.

    On several machines, start `mdpipe train RUN` once on each, as `srun` does, with torchrun's variables PET_NNODES,
    PET_RDZV_ENDPOINT and PET_RDZV_ID set.

    Raises:
        ValueError: PET_NNODES is invalid or does not divide the number of processes.
        TimeoutError: The other machines have not started within JOIN_SECONDS.
        SystemExit: A process failed, with its exit status and after the others have been stopped; or this process
            received a signal, which it has passed on to them.
    """
    stated = os.environ.get(NUM_NODES, "1")
    if not stated.isdecimal() or not (nodes := int(stated)):
        raise ValueError(f"{NUM_NODES} = {stated!r} must be the number of machines, or be unset")
    if num_processes % nodes:
        raise ValueError(
            f"hardware.num_processes = {num_processes} cannot be divided evenly among {NUM_NODES} = {nodes} machines;"
            f" `unset {NUM_NODES}` for one machine"
        )
    config = LaunchConfig(
        min_nodes=nodes,
        max_nodes=nodes,
        nproc_per_node=num_processes // nodes,
        run_id=os.environ.get(RDZV_ID, "mdpipe"),
        rdzv_backend="c10d",
        rdzv_endpoint=os.environ.get(RDZV_ENDPOINT, "localhost:0"),
        rdzv_configs={"join_timeout": JOIN_SECONDS},
        max_restarts=0,
        monitor_interval=MONITOR_SECONDS,
    )
    os.environ.setdefault(SIGNALS_TO_HANDLE, ",".join(["SIGHUP", *(number.name for number in EXIT_STATUS)]))
    try:
        elastic_launch(config, command[0])(*command[1:])
    except ChildFailedError as error:
        # The process has printed its own error; torch's summary would only bury it.
        raise SystemExit(max(1, error.get_first_failure()[1].exitcode)) from None
    except RendezvousTimeoutError:
        raise TimeoutError(
            f"{NUM_NODES} = {nodes}, and fewer machines have started within {JOIN_SECONDS} seconds; start the same"
            f" command on each, with the same {RDZV_ENDPOINT} and {RDZV_ID}"
        ) from None
    except SignalException as error:
        raise SystemExit(EXIT_STATUS.get(error.sigval, EXIT_INTERRUPTED)) from None


@contextmanager
def init_distributed() -> Iterator[World]:
    """Create torch's process group from torchrun's variables, with NCCL on GPUs and gloo on CPUs, and yield the world.

    Each process gets its own GPU as its current CUDA device. A process that torchrun has not started is a world of one,
    even if another launcher has left RANK and WORLD_SIZE in the environment.

    Raises:
        TimeoutError: Some of the processes have not started within START_SECONDS.
    """
    if not distributed.is_torchelastic_launched():
        yield World()
        return
    device = None
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ[LOCAL_RANK]))
        torch.cuda.set_device(device)
    backend = "gloo" if device is None else "cpu:gloo,cuda:nccl"
    store, rank, size = next(rendezvous("env://"))
    wait_for_start(store, rank, size)
    distributed.init_process_group(backend, store=store, rank=rank, world_size=size, device_id=device)
    try:
        yield World(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()


def wait_for_start(store: "Store", rank: int, size: int) -> None:
    """Wait until all processes have called this, so that one that has failed ends the others.

    Raises:
        TimeoutError: Some have not within START_SECONDS.
    """
    keys = [f"started/{other}" for other in range(size)]
    store.set(keys[rank], socket.gethostname())
    try:
        store.wait(keys, timedelta(seconds=START_SECONDS))
    except DistStoreError:
        is_started = [store.check([key]) for key in keys]
        missing = ", ".join(str(other) for other in range(size) if not is_started[other])
        hosts = {store.get(keys[other]).decode() for other in range(size) if is_started[other]}
        raise TimeoutError(
            f"of {size} processes, those of rank {missing} have not started within {START_SECONDS} seconds; the others"
            f" run on {', '.join(sorted(hosts))}. The log of the machine that is missing says why; start the command"
            " again on all machines"
        ) from None


def parallelize(loss: nn.Module, layers: Iterable[nn.Module], hardware: HardwareConfig, world: World) -> nn.Module:
    """Wrap the loss with DDP or FSDP2, so that gradients are the mean over all processes.

    FSDP2 turns the parameters into DTensors, so build the optimizer afterwards. Without a process group the loss is
    returned unchanged; a group of one process uses the same code path as a larger one.

    Args:
        loss: Module that returns the losses of this process's rows.
        layers: Its submodules that FSDP2 gathers one at a time.
    """
    if not distributed.is_initialized():
        return loss
    if hardware.strategy == "ddp":
        return DistributedDataParallel(loss)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(next(loss.parameters()).device.type, (world.size,))
    for layer in layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(loss, mesh=mesh)
    return loss


def set_gradient_sync(loss: nn.Module, is_last: bool) -> None:
    """Accumulate the gradients of a micro-batch locally, or synchronize them all if it is the last one."""
    if isinstance(loss, DistributedDataParallel):
        loss.require_backward_grad_sync = is_last
    elif distributed.is_initialized():
        cast("FSDPModule", loss).set_requires_gradient_sync(is_last)


def global_grad_norms(parameters: Sequence[nn.Parameter]) -> Tensor:
    """Return the norm of each parameter's gradient, (P,) float32, 0 without a gradient; no GPU is synchronized.

    The norms of sharded gradients are combined in one all-reduce.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norms = iter(torch._foreach_norm([to_local(gradient) for gradient in gradients]))
    zero = torch.zeros((), device=parameters[0].device)
    norms_P = torch.stack([zero if parameter.grad is None else next(norms) for parameter in parameters])
    if not any(map(is_sharded, gradients)):
        return norms_P
    squares = norms_P.square()
    distributed.all_reduce(squares)
    return squares.sqrt()


def is_sharded(tensor: Tensor) -> "TypeGuard[DTensor]":
    """Return True if the tensor is a DTensor."""
    return hasattr(tensor, "full_tensor")


def full_tensor(tensor: Tensor) -> Tensor:
    """Gather a sharded tensor, a collective call; return any other as it is."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor


def to_local(tensor: Tensor) -> Tensor:
    """Return this process's shard of a sharded tensor, and any other as it is."""
    return tensor.to_local() if is_sharded(tensor) else tensor
