"""Training: optimizers, the `train` of a run, and its `hardware`."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from mdpipe.params.errors import BrokenRules
from mdpipe.params.fields import EvenNumber, Positive
from mdpipe.params.registry import Config, KindConfig


class OptimizerConfig(KindConfig):
    """Optimizer; its peak learning rate is that of `train`."""

    beta2: Annotated[float, Field(gt=0, lt=1)] = 0.999
    """Decay rate of AdamW's second moment; the official configs have 0.999 for text, 0.99 for images."""
    weight_decay: Annotated[float, Field(ge=0, lt=1)] = 0.03
    """Decoupled weight decay, multiplied by the learning rate; the official configs have 0.03 for text, 0.01 for
    images."""
    cautious_weight_decay: bool = False
    """Decay only the entries that the step moves towards 0 anyway, or leaves (Chen et al. 2025, arXiv:2510.12402)."""


class AdamWConfig(OptimizerConfig):
    """AdamW on all weights, as in the paper; beta1 is 0.9."""

    kind: Literal["adamw"] = "adamw"


class MatrixOptimizerConfig(OptimizerConfig):
    """Orthogonal steps for the matrices and convolutions of the layers, and AdamW for all other weights.

    The steps are scaled to the size of AdamW's, so one learning rate and one weight decay can serve both. They are
    computed in float32 on a CPU and in bfloat16 on a GPU, whatever the precision of the network's products.
    """

    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """Momentum of the matrices' gradients (Nesterov)."""
    learning_rate: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Peak learning rate of the matrices, which follows the same warm-up and decay; null for that of `train`."""


class MuonConfig(MatrixOptimizerConfig):
    """Muon on the matrices and convolutions of the blocks, whose steps are made orthogonal, and AdamW on all other
    weights.
    """

    kind: Literal["muon"] = "muon"


class NorMuonConfig(MatrixOptimizerConfig):
    """Muon whose orthogonal steps are divided by the root mean square of each row over time, and AdamW on all other
    weights (Li et al. 2025, arXiv:2510.05491).
    """

    kind: Literal["normuon"] = "normuon"
    row_beta2: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """Decay rate of the rows' mean square."""


class LRScheduleConfig(KindConfig):
    """Learning rate after the warm-up, from its peak to 0 after the last step."""


class CosineDecayConfig(LRScheduleConfig):
    """A cosine from the end of the warm-up to the end of the run, as in the paper."""

    kind: Literal["cosine"] = "cosine"


class WarmupStableDecayConfig(LRScheduleConfig):
    """The peak until the last part of the run, then a decay (warm-up-stable-decay)."""

    kind: Literal["warmup_stable_decay"] = "warmup_stable_decay"
    decay_fraction: Annotated[float, Field(gt=0, le=1)] = 0.4
    """Last part of the steps in which the learning rate decays; the warm-up must end before it."""
    shape: Literal["linear", "1-sqrt"] = "linear"
    """Factor of the peak at a fraction p of the decay: `linear`, 1 - p, or `1-sqrt`, 1 - sqrt(p) (Hägele et al. 2024,
    arXiv:2405.18392)."""


class ValidationConfig(Config):
    """Bounds of a few examples of the validation split, evenly spaced, while a run trains. They decide nothing unless
    `keep_best` is true, and appear in the live log, the training curve and the loggers.
    """

    every: Positive
    """Steps between validations; there is one after the last step, too."""
    num_examples: Annotated[int, Field(ge=2)] = 64
    """Number of examples; all of them if the split has fewer."""
    num_mc_samples: EvenNumber = 2
    """Monte Carlo samples of (time, mask) per example, the same at every validation; even, as in evaluation. On the
    default suite, two have a Monte Carlo error below the standard error over 64 examples."""
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
    """Peak learning rate, reached after the warm-up; `lr_schedule` then decays it to 0 at the last step."""
    warmup_steps: Annotated[int, Field(ge=0)] = Field(default_factory=lambda data: min(2000, data["steps"] // 10))
    """Steps of linear warm-up; fewer than `steps`. By default the paper's 2,000, or a tenth of a shorter run."""
    lr_schedule: LRScheduleConfig = CosineDecayConfig()
    """Decay of the learning rate after the warm-up."""
    optimizer: OptimizerConfig = AdamWConfig()
    """Optimizer and its settings."""
    max_grad_norm: Annotated[float, Field(gt=0)] | None = 1.0
    """Clip the global gradient norm to this value; null for no clipping."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.9999
    """Decay of the moving average of the weights. The averaged weights are the model."""
    ema_start: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Fraction of the steps after which the average starts, from the weights at that step (tail EMA)."""
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
            newest: Step of the newest checkpoint that is there.
            kept: Number of checkpoints that are there, which stay until newer ones replace them.
        """
        if newest >= self.steps:
            return kept
        written = -(-self.steps // self.save_every) - newest // self.save_every  # The last step has one.
        return max(kept, min(self.save_total_limit + 1, kept + written))

    def decay_start(self) -> int:
        """Return the first step of the learning rate's decay: the last one at the peak."""
        if isinstance(self.lr_schedule, WarmupStableDecayConfig):
            return self.steps - max(1, round(self.lr_schedule.decay_fraction * self.steps))
        return self.warmup_steps

    def broken_rules(self) -> BrokenRules:
        """Yield that the warm-up does not end, or not before the decay."""
        if self.warmup_steps >= self.steps:
            yield ("warmup_steps",), f"must be below steps = {self.steps}"
        elif self.warmup_steps > self.decay_start():
            yield ("warmup_steps",), f"must be at most {self.decay_start()}, the step at which lr_schedule decays"


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
