"""How a run is computed, the `hardware` of a run in params.yaml: what changes its speed and memory."""

from typing import Literal

from mdpipe.params.base import Positive, Section


class HardwareSettings(Section):
    """The machine's part in a training run.

    All of it is a param, since it decides the bytes of the result: precision how far products are rounded (and
    `compile` how often, in bfloat16 convolutions on a CPU), and all else in which order sums are taken, hence no more
    than last digits.
    """

    precision: Literal["float32", "bfloat16"]
    """What the matrix products compute in; weights, averages and losses are float32 always."""
    threads: Positive
    """CPU threads of a process."""
    processes: Positive
    """Processes that share every batch, each with a GPU of its own where there are any."""
    strategy: Literal["ddp", "fsdp"]
    """Whether each process holds all weights (ddp), or a part of them and of the optimizer's state (fsdp)."""
    micro_batches: Positive
    """Parts of its share of a batch that a process takes one after another, to need less memory."""
    compile: bool
    """Whether torch.compile makes the kernels of the network's layers and of what its logits cost: a minute or two at
    the start, which long runs earn back. On a CPU the 3 x 3 convolutions then take half the multiplications (Winograd),
    with up to twice the rounding error in bfloat16."""
    recompute: bool
    """Whether layers keep only their input and are computed again on the way back (activation checkpointing)."""
