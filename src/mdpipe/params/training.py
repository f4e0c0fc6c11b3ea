"""Training: optimizers, the `train` of a run, and its `hardware`."""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from mdpipe.params.errors import Keys
from mdpipe.params.kinds import AnyKind, Config, KindConfig, Positive


class OptimizerConfig(KindConfig, is_family=True):
    """Optimizer; its learning rate is that of `train`."""

    beta2: Annotated[float, Field(gt=0, lt=1)] = 0.999
    """Decay rate of AdamW's second moment; the official configs have 0.999 for text, 0.99 for images."""
    weight_decay: Annotated[float, Field(ge=0, lt=1)] = 0.03
    """Decoupled weight decay, multiplied by the learning rate; the official configs have 0.03 for text, 0.01 for
    images."""


class AdamWConfig(OptimizerConfig):
    """AdamW on all weights, as in the paper; beta1 is 0.9."""

    kind: Literal["adamw"] = "adamw"


class MuonConfig(OptimizerConfig):
    """Muon on the matrices of the layers, whose steps are made orthogonal, and AdamW on all other weights.

    Its steps are scaled to the size of AdamW's, so one learning rate and one weight decay serve both. They are computed
    in float32 on a CPU and in bfloat16 on a GPU, whatever the precision of the network's products.
    """

    kind: Literal["muon"] = "muon"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """Momentum of the matrices' gradients (Nesterov)."""


AnyOptimizer = Annotated[OptimizerConfig, AnyKind(OptimizerConfig)]


class ValidationConfig(Config):
    """Bounds of a few examples of the validation split, evenly spaced, while a run trains. They decide nothing unless
    `keep_best` is true, and appear in the live log, the training curve and the loggers.
    """

    every: Positive
    """Steps between validations; there is one after the last step, too."""
    num_examples: Annotated[int, Field(ge=2)] = 64
    """Number of examples; all of them if the split has fewer."""
    num_mc_samples: Positive = 8
    """Monte Carlo samples of (time, mask) per example, the same at every validation."""
    batch_size: Positive = 64
    """Examples per batch."""
    keep_best: bool = False
    """The model is the averaged weights with the lowest bound, instead of the last ones."""


class TrainConfig(Config):
    """Optimizer and length of a training run."""

    steps: Positive
    """Optimizer steps."""
    batch_size: Positive
    """Examples per step, over all processes and micro-batches."""
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 3e-4
    """Peak learning rate, reached after the warm-up; a cosine then decays it to 0 at the last step."""
    warmup_steps: Annotated[int, Field(ge=0)] = Field(default_factory=lambda data: min(2000, data["steps"] // 10))
    """Steps of linear warm-up; fewer than `steps`. By default the paper's 2,000, or a tenth of a shorter run."""
    optimizer: AnyOptimizer = AdamWConfig()
    """Optimizer and its settings."""
    max_grad_norm: Annotated[float, Field(gt=0)] | None = 1.0
    """Clip the global gradient norm to this value; null for no clipping."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.9999
    """Decay of the moving average of the weights. The averaged weights are the model."""
    validation: ValidationConfig | None = None
    """Validation while the run trains; null for none."""
    save_every: Positive = 1000
    """Steps between checkpoints."""
    save_total_limit: Positive = 2
    """Number of checkpoints kept. If the newest is corrupt, training resumes from the one before."""
    renamed: ClassVar[dict[str, str]] = {
        "gradient_clip": "max_grad_norm",
        "checkpoint_every": "save_every",
        "keep_checkpoints": "save_total_limit",
    }

    def most_checkpoints(self, newest: int = 0, kept: int = 0) -> int:
        """Return the largest number of checkpoints on the disk at once, including the one that is being written.

        Args:
            newest: step of the newest checkpoint that is there.
            kept: number of checkpoints that are there, which stay until newer ones replace them.
        """
        if newest >= self.steps:
            return kept
        written = -(-self.steps // self.save_every) - newest // self.save_every  # The last step has one.
        return max(kept, min(self.save_total_limit + 1, kept + written))

    def broken_rules(self) -> Iterator[tuple[Keys, str]]:
        """Yield that the warm-up does not end."""
        if self.warmup_steps >= self.steps:
            yield ("warmup_steps",), f"must be below steps = {self.steps}"


class HardwareConfig(Config):
    """Use of the machine by training.

    These settings only change floating-point rounding, except `precision` (and `compile` for bfloat16 convolutions on
    a CPU). They are params because they decide the bytes of the result.
    """

    precision: Literal["float32", "bfloat16"] = "float32"
    """Data type of the matrix products. Weights, averages, losses and the optimizer state stay float32."""
    threads: Positive = 1
    """CPU threads per process."""
    num_processes: Positive = 1
    """Processes that share each batch, one per GPU where there are GPUs. `mdpipe train` starts them."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """`ddp`: each process holds all weights. `fsdp`: weights and optimizer state are sharded."""
    gradient_accumulation_steps: Positive = 1
    """Micro-batches per process and step. More of them use less memory."""
    compile: bool = False
    """Compile the network's layers and the loss with torch.compile, which takes a minute or two at the start. On a CPU,
    3 x 3 convolutions then take half the multiplications (Winograd), with up to twice the rounding error in
    bfloat16."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass, which uses less memory."""
    renamed: ClassVar[dict[str, str]] = {
        "processes": "num_processes",
        "micro_batches": "gradient_accumulation_steps",
        "recompute": "activation_checkpointing",
    }
