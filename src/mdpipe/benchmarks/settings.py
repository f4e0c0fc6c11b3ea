"""Settings of the benchmarks, which are the options of `mdpipe bench`. Nothing here loads torch: its help is fast."""

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, get_args

from mdpipe.options import option
from mdpipe.params import EstimatorConfig
from mdpipe.params.networks import NetworkConfig, TransformerConfig, UNetConfig, UViTConfig
from mdpipe.params.training import HardwareConfig, OptimizerConfig

if TYPE_CHECKING:
    from mdpipe.networks.base import Network

SAMPLERS = ("ancestral", "ancestral_stepwise", "two_stage", "first_hitting")
PRECISIONS: tuple[str, ...] = get_args(HardwareConfig.model_fields["precision"].annotation)
ESTIMATORS: tuple[str, ...] = get_args(EstimatorConfig.model_fields["estimator"].annotation)


@dataclass(frozen=True)
class Shape:
    """A network and the shape of its data."""

    network: NetworkConfig
    vocab_size: int
    shape: tuple[int, ...]
    batch: int

    @property
    def length(self) -> int:
        """Return the number of tokens per example."""
        return math.prod(self.shape)

    def shrink(self) -> "Shape":
        """Return a tiny network of the same kind with data of the same kind, for a rehearsal on a CPU."""
        sizes = {name: size for name, size in TINY_SIZES.items() if name in type(self.network).model_fields}
        shape = (16,) if len(self.shape) == 1 else (4, 4, 3)
        return Shape(self.network.model_copy(update=sizes), min(self.vocab_size, 500), shape, batch=2)

    def build_network(self, seed: int, *, causal: bool = False) -> "Network":
        """Return the network with its initial weights, on the CPU."""
        from mdpipe.networks.base import NetworkSpec, build_network

        return build_network(NetworkSpec(self.network, self.vocab_size, self.shape, causal=causal), seed)


TINY_SIZES = {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "num_blocks": 1, "transformer_width": 16}
PAPER_TRANSFORMER = TransformerConfig(num_layers=12, num_heads=12, hidden_size=768, time_conditioning=True)
SHAPES = {
    "chars": Shape(TransformerConfig(num_layers=4, num_heads=4, hidden_size=128), 27, (128,), 8),
    "text8-11m": Shape(
        TransformerConfig(num_layers=6, num_heads=6, hidden_size=384, time_conditioning=True), 27, (256,), 8
    ),
    "text8": Shape(PAPER_TRANSFORMER, 27, (256,), 8),
    "gpt2-small": Shape(PAPER_TRANSFORMER, 50257, (1024,), 8),
    "cifar10-small": Shape(UNetConfig(hidden_size=64, num_blocks=4, time_conditioning=True), 256, (32, 32, 3), 4),
    "cifar10": Shape(UNetConfig(hidden_size=128, num_blocks=32, time_conditioning=True), 256, (32, 32, 3), 4),
    "imagenet64": Shape(
        UViTConfig(
            hidden_size=256,
            num_blocks=24,
            transformer_width=768,
            num_layers=12,
            num_heads=12,
            time_conditioning=True,
        ),
        256,
        (64, 64, 3),
        1,
    ),
}
"""chars is the default suite's; text8, gpt2-small, cifar10 and imagenet64 are the paper's; the others are smaller
versions of them."""


@dataclass(frozen=True)
class Settings:
    """Settings of one measurement.

    Raises:
        ValueError: A value is not one of the choices.
    """

    def __post_init__(self) -> None:
        for one in fields(self):
            choices, value = one.metadata.get("choices"), getattr(self, one.name)
            if choices and value not in choices:
                raise ValueError(f"--{one.name} must be one of {', '.join(choices)}, not {value!r}")


@dataclass(frozen=True)
class SamplingSettings(Settings):
    """Measure sampling from masks with a random transformer: each sampler and batch in a separate process."""

    batch: int = option([1, 8], "Samples per batch", min=1)
    sampler: str = option(["ancestral", "ancestral_stepwise"], "Sampler", choices=SAMPLERS)
    length: int = option(1024, "Tokens per sample", min=1)
    vocab_size: int = option(50257, "Vocabulary size", min=1)
    steps: int = option(1000, "Steps from masks to samples", min=1)
    steady_steps: int = option(10, "Steps to time of a sampler whose steps all cost the same", min=1)
    num_layers: int = option(4, "Layers of the transformer", min=1)
    num_heads: int = option(4, "Attention heads of the transformer", min=1)
    hidden_size: int = option(128, "Width of the transformer", min=1)
    repeats: int = option(3, "Repetitions of each measurement", min=1)
    threads: int = option(1, "CPU threads", min=1)
    device: str = option("cpu", "Device to measure on", choices=("cpu", "cuda"))
    dtype: str = option("float32", "Precision of the network", choices=PRECISIONS)
    seed: int = option(0, "Seed of weights and samples", min=0)


@dataclass(frozen=True)
class TrainingSettings(Settings):
    """Measure training on random tokens: each shape, batch, precision and optimizer in a separate process.

    Shapes: chars as in the default suite; text8, gpt2-small, cifar10 and imagenet64 as in the paper; text8-11m and
    cifar10-small for a small machine.
    """

    shape: str = option(["text8-11m"], "A network and its data", choices=SHAPES)
    batch: int = option([0], "Examples per step; 0 for the shape's", min=0)
    precision: str = option(["float32"], "Precision of the matrix products", choices=PRECISIONS)
    objective: str = option("md4", "Objective", choices=("md4", "genmd4"))
    """GenMD4 calls its network twice per step."""
    optimizer: str = option(["adamw"], "Optimizer of the network's layers", choices=OptimizerConfig.kinds)
    compile: bool = option(False, "Compile the network with torch.compile")
    activation_checkpointing: bool = option(False, "Recompute activations in the backward pass")
    steps: int = option(10, "Steps timed", min=1)
    warm_up: int = option(3, "Steps before they are timed", min=1)
    threads: int = option(1, "CPU threads", min=1)
    device: str = option("cpu", "Device to measure on", choices=("cpu", "cuda"))
    seed: int = option(0, "Seed of weights and tokens", min=0)
    group: int = 1
    """Steps timed together; a GPU is synchronized between groups only."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch == 0:
            object.__setattr__(self, "batch", SHAPES[self.shape].batch)


@dataclass(frozen=True)
class DataSettings(Settings):
    """Measure data preparation, from synthetic text to training batches: each size, tokenizer and number of workers."""

    size: int = option([2000], "MB of JSON lines", min=1)
    tokenizer: str = option(["bytes"], "Tokenizer of the text", choices=("bytes", "text8", "sentencepiece", "gpt2"))
    workers: int = option([1], "Processes that read and encode", min=1)
    kill: bool = option(False, "Encode once more, kill it halfway and run it again")
    path: str | None = option(None, "Folder with GPT-2's vocab.json and merges.txt")
    folder: str | None = option(None, "Folder for all files, which are kept")
    seed: int = option(0, "Seed of text, splits and batches", min=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tokenizer == "gpt2" and self.path is None:
            raise ValueError("--tokenizer gpt2 needs --path, a folder with GPT-2's vocab.json and merges.txt")


@dataclass(frozen=True)
class LikelihoodSettings(Settings):
    """Measure the variance of every estimator of the likelihood bound, at equal network calls, on trained runs.

    With --out, STEM.csv and STEM.svg are written as well.
    """

    run: str = option(["chars_md4", "digits", "photos"], "A trained run")
    num_mc_samples: int = option([4, 16], "Network calls per example", min=1, name="calls")
    estimator: str = option([*ESTIMATORS], "An estimator", choices=ESTIMATORS)
    examples: int = option(16, "Examples of the test split", min=2)
    repeats: int = option(6, "Number of seeds", min=2)
    threads: int = option(1, "CPU threads", min=1)
    seed: int = option(0, "First seed", min=0)
