"""What makes a computation give the same bytes each time on one machine, in about the same time."""

import os

import torch


def make_deterministic(threads: int) -> None:
    """Fix all that decides in which order sums are taken: the threads of the CPU, the kernels of the GPU.

    It holds for the whole process. Call it before the first use of a GPU, whose matrix library reads its setting once,
    and before the first computation on the CPU, since the threads inherit how this one treats denormal numbers.

    Those, of size below 1.2e-38, become 0. Attention makes them: where its scores span more than 87, as they do at a
    high learning rate, the smallest probabilities and their gradients are denormal. Some processors take over a hundred
    cycles for each; results/optimizers has a run that took 2.6 times as long.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_flush_denormal(True)
    torch.set_num_threads(threads)
    # As use_deterministic_algorithms(True), but without loading the compiler, of which only it would tell besides.
    torch.set_deterministic_debug_mode("error")
    # That switch also fills each new tensor with NaN, a help against reading unset memory that costs time each step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
