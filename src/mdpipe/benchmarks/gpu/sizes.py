"""The settings of the GPU run: at full size, and tiny for a rehearsal."""

from dataclasses import dataclass, replace

from mdpipe.benchmarks.sampling import SamplingBenchmark
from mdpipe.benchmarks.training import SHAPES, Shape
from mdpipe.params.diffusion import GenMD4Config, MD4Config, ObjectiveConfig
from mdpipe.params.networks import TransformerConfig, UNetConfig, UViTConfig
from mdpipe.params.training import HardwareConfig

DATA_SHEET_PEAKS = {"H200": 989.4e12, "H100 80GB HBM3": 989.4e12, "A100": 312e12}
"""FLOP/s of dense bfloat16 products by the data sheets of NVIDIA's SXM modules; keys are parts of device names."""

COMPILED, COMPILED_BFLOAT16 = HardwareConfig(compile=True), HardwareConfig(precision="bfloat16", compile=True)

SMALL_TRANSFORMER = TransformerConfig(num_layers=2, num_heads=2, hidden_size=128, time_conditioning=True, dropout=0.1)
SMALL_UNET = UNetConfig(hidden_size=32, num_blocks=2, time_conditioning=True, dropout=0.1)
SMALL_UVIT = UViTConfig(
    hidden_size=32,
    num_blocks=1,
    transformer_width=64,
    num_layers=2,
    num_heads=2,
    time_conditioning=True,
    dropout=0.1,
)
"""Networks whose losses and gradients are compared."""

TINY_TRANSFORMER = TransformerConfig(num_layers=1, num_heads=2, hidden_size=16, time_conditioning=True, dropout=0.1)
TINY_UNET = UNetConfig(hidden_size=8, num_blocks=1, time_conditioning=True, dropout=0.1)
TINY_UVIT = UViTConfig(
    hidden_size=8,
    num_blocks=1,
    transformer_width=16,
    num_layers=2,
    num_heads=2,
    time_conditioning=True,
    dropout=0.1,
)


@dataclass(frozen=True)
class Check:
    """A small training run whose losses and gradients are compared."""

    shape: Shape
    objective: ObjectiveConfig


@dataclass(frozen=True)
class Training:
    """The training at the end, on text that the machine has."""

    package: str
    """Whose docstrings are the text; "python" is the standard library."""
    shape: Shape
    held_out: int
    """Characters that the bound is measured on, about."""
    draws: int
    """Of the bound, per example."""
    evaluation_batch: int
    seconds: float
    """Most that its steps may take."""
    peak_learning_rate: float


@dataclass(frozen=True)
class Sizes:
    """All settings of a run."""

    hardware: HardwareConfig
    """Of the measured steps; the threads are those of all parts."""
    checks: dict[str, Check]
    compiled_checks: tuple[tuple[str, HardwareConfig], ...]
    """Names of checks and how they are compiled, the most important first, since compiling takes long."""
    speeds: dict[str, Shape]
    """Networks by name; a shape's batch is where the doubling begins."""
    doublings: int
    groups: int
    steps: int
    """Steps of each of the `groups` that are timed."""
    warm_up: int
    chunk_shape: str
    """The network of `speeds` whose head is measured with chunks of each size in `chunk_bytes`."""
    chunk_bytes: tuple[int, ...]
    sampled_vocab_size: int
    """Of the samples that are compared."""
    samplers: tuple[SamplingBenchmark, ...]
    training: Training


def _sampler(kind: str, batch: int, *, tiny: bool = False) -> SamplingBenchmark:
    return SamplingBenchmark(
        sampler=kind,
        batch=batch,
        length=8 if tiny else 1024,
        vocab_size=11 if tiny else 50257,
        steps=10 if tiny else 1000,
        steady_steps=3 if tiny else 10,
        num_layers=1 if tiny else 12,
        num_heads=2 if tiny else 12,
        hidden_size=16 if tiny else 768,
        repeats=2,
        threads=1 if tiny else 8,
        device="cpu",
        dtype="float32" if tiny else "bfloat16",
        seed=0,
    )


FULL = Sizes(
    hardware=HardwareConfig(precision="bfloat16", threads=8, compile=True),
    checks={
        "transformer, md4": Check(Shape(SMALL_TRANSFORMER, 27, (64,), 8), MD4Config()),
        "transformer, genmd4": Check(Shape(SMALL_TRANSFORMER, 27, (64,), 8), GenMD4Config()),
        "unet, md4": Check(Shape(SMALL_UNET, 256, (16, 16, 3), 4), MD4Config()),
        "uvit, md4": Check(Shape(SMALL_UVIT, 256, (16, 16, 3), 4), MD4Config()),
    },
    compiled_checks=(
        ("transformer, md4", COMPILED),
        ("uvit, md4", COMPILED),
        ("unet, md4", COMPILED),
        ("transformer, genmd4", COMPILED),
        ("transformer, md4", COMPILED_BFLOAT16),
        ("uvit, md4", COMPILED_BFLOAT16),
        ("unet, md4", COMPILED_BFLOAT16),
        ("transformer, genmd4", COMPILED_BFLOAT16),
    ),
    speeds={
        "text8": replace(SHAPES["text8"], batch=128),
        "gpt2-small": replace(SHAPES["gpt2-small"], batch=32),
        "cifar10": replace(SHAPES["cifar10"], batch=128),
        "imagenet64": replace(SHAPES["imagenet64"], batch=16),
    },
    doublings=4,
    groups=3,
    steps=5,
    warm_up=3,
    chunk_shape="gpt2-small",
    chunk_bytes=(2**24, 2**26, 2**28, 2**30, 2**34),
    sampled_vocab_size=50257,
    samplers=(
        _sampler("ancestral_stepwise", 1),
        _sampler("ancestral", 1),
        _sampler("ancestral_stepwise", 16),
        _sampler("ancestral", 16),
        _sampler("two_stage", 16),
    ),
    training=Training(
        package="python",
        shape=Shape(
            TransformerConfig(num_layers=12, num_heads=12, hidden_size=768, time_conditioning=True, dropout=0.05),
            27,
            (256,),
            64,
        ),
        held_out=130_000,
        draws=8,
        evaluation_batch=256,
        seconds=600,
        peak_learning_rate=5e-4,
    ),
)
"""For one GPU of about 140 GiB, within nine minutes."""

TINY = Sizes(
    hardware=HardwareConfig(),
    checks={
        "transformer, md4": Check(Shape(TINY_TRANSFORMER, 11, (8,), 4), MD4Config()),
        "transformer, genmd4": Check(Shape(TINY_TRANSFORMER, 11, (8,), 4), GenMD4Config()),
        "unet, md4": Check(Shape(TINY_UNET, 256, (4, 4, 3), 2), MD4Config()),
        "uvit, md4": Check(Shape(TINY_UVIT, 256, (4, 4, 3), 2), MD4Config()),
    },
    compiled_checks=(("transformer, md4", COMPILED),),
    speeds={
        "text8": Shape(TINY_TRANSFORMER, 11, (8,), 2),
        "gpt2-small": Shape(TINY_TRANSFORMER, 500, (16,), 2),
        "cifar10": Shape(TINY_UNET, 256, (4, 4, 3), 2),
        "imagenet64": Shape(TINY_UVIT, 256, (4, 4, 3), 2),
    },
    doublings=1,
    groups=2,
    steps=2,
    warm_up=1,
    chunk_shape="gpt2-small",
    chunk_bytes=(2**10, 2**26),
    sampled_vocab_size=500,
    samplers=tuple(_sampler(kind, 2, tiny=True) for kind in ("ancestral_stepwise", "ancestral")),
    training=Training(
        package="json",
        shape=Shape(TINY_TRANSFORMER.model_copy(update={"hidden_size": 32}), 27, (32,), 8),
        held_out=2_000,
        draws=2,
        evaluation_batch=32,
        seconds=2,
        peak_learning_rate=1e-2,
    ),
)
"""For a rehearsal in a minute on a CPU."""
