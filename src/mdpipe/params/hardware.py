"""How a run is computed, the `hardware` of a run in params.yaml: what changes its speed and memory."""

from typing import Literal

from mdpipe.params.base import Positive, Section


class HardwareSettings(Section):
    """How training uses the machine.

    These settings only change floating-point rounding, except `precision` (and `compile` for bfloat16 convolutions on
    a CPU). They are params because they decide the bytes of the result.
    """

    precision: Literal["float32", "bfloat16"]
    """Data type of the matrix products. Weights, averages, losses and the optimizer state stay float32."""
    threads: Positive
    """CPU threads per process."""
    processes: Positive
    """Processes that share each batch, one per GPU where there are GPUs. `mdpipe train` starts them."""
    strategy: Literal["ddp", "fsdp"]
    """`ddp`: each process holds all weights. `fsdp`: weights and optimizer state are sharded."""
    micro_batches: Positive
    """Gradient accumulation: micro-batches per process and step. More of them use less memory."""
    compile: bool
    """Compile the network's layers and the loss with torch.compile, which takes a minute or two at the start. On a CPU,
    3 x 3 convolutions then take half the multiplications (Winograd), with up to twice the rounding error in
    bfloat16."""
    recompute: bool
    """Activation checkpointing: recompute activations in the backward pass."""
