"""The settings of the GPU run: at full size, and tiny for a rehearsal."""

from dataclasses import dataclass, replace
from typing import Any

from mdpipe.benchmarks.sampling import SamplingBenchmark
from mdpipe.benchmarks.training import SHAPES, Shape, transformer_shape, unet_shape, uvit_shape

DATA_SHEET_PEAKS = {"H200": 989.4e12, "H100 80GB HBM3": 989.4e12, "A100": 312e12}
"""FLOP/s of dense bfloat16 products by the data sheets of NVIDIA's SXM modules; keys are parts of device names."""

OBJECTIVES: dict[str, dict[str, Any]] = {
    "md4": {"schedule": {"kind": "linear"}},
    "genmd4": {"initial_exponent": 1.0},
    "maskgit": {"schedule": {"kind": "linear"}},
    "sedd": {"schedule": {"kind": "linear"}},
    "d3pm": {"schedule": {"kind": "linear"}, "timesteps": 5, "grid": "uniform", "auxiliary": 0.1},
    "any_order": {},
    "autoregressive": {},
}
"""Every objective, with settings: no training step of any may wait for the device."""


@dataclass(frozen=True)
class Check:
    """A small training run whose losses and gradients are compared."""

    shape: Shape
    objective: str


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

    threads: int
    """CPU threads of a process."""
    precision: str
    """Of the measured steps."""
    checks: dict[str, Check]
    compiled_checks: tuple[tuple[str, str], ...]
    """Name of a check and precision, the most important first: each is compiled, which takes long."""
    speeds: dict[str, Shape]
    """Networks by name; a shape's batch is where the doubling begins."""
    compile: bool
    doublings: int
    groups: int
    steps: int
    """Steps of each of the `groups` that are timed."""
    warm_up: int
    chunk_shape: str
    """The network of `speeds` whose head is measured with chunks of each size in `chunk_bytes`."""
    chunk_bytes: tuple[int, ...]
    sampled_vocabulary: int
    """Of the samples that are compared."""
    samplers: tuple[SamplingBenchmark, ...]
    training: Training


def _sampler(kind: str, batch: int, *, tiny: bool = False) -> SamplingBenchmark:
    return SamplingBenchmark(
        sampler=kind,
        batch=batch,
        length=8 if tiny else 1024,
        vocabulary=11 if tiny else 50257,
        steps=10 if tiny else 1000,
        steady_steps=3 if tiny else 10,
        layers=1 if tiny else 12,
        heads=2 if tiny else 12,
        width=16 if tiny else 768,
        repeats=2,
        threads=1 if tiny else 8,
        device="cpu",
        dtype="float32" if tiny else "bfloat16",
        seed=0,
    )


FULL = Sizes(
    threads=8,
    precision="bfloat16",
    checks={
        "transformer, md4": Check(transformer_shape(2, 2, 128, 27, 64, 8, dropout=0.1), "md4"),
        "transformer, genmd4": Check(transformer_shape(2, 2, 128, 27, 64, 8, dropout=0.1), "genmd4"),
        "unet, md4": Check(unet_shape(32, 2, 16, 4, dropout=0.1), "md4"),
        "uvit, md4": Check(uvit_shape(32, 1, (64, 2, 2), 16, 4, dropout=0.1), "md4"),
    },
    compiled_checks=(
        ("transformer, md4", "float32"),
        ("uvit, md4", "float32"),
        ("unet, md4", "float32"),
        ("transformer, genmd4", "float32"),
        ("transformer, md4", "bfloat16"),
        ("uvit, md4", "bfloat16"),
        ("unet, md4", "bfloat16"),
        ("transformer, genmd4", "bfloat16"),
    ),
    speeds={
        "text8": replace(SHAPES["text8"], batch=128),
        "gpt2-small": replace(SHAPES["gpt2-small"], batch=32),
        "cifar10": replace(SHAPES["cifar10"], batch=128),
        "imagenet64": replace(SHAPES["imagenet64"], batch=16),
    },
    compile=True,
    doublings=4,
    groups=3,
    steps=5,
    warm_up=3,
    chunk_shape="gpt2-small",
    chunk_bytes=(2**24, 2**26, 2**28, 2**30, 2**34),
    sampled_vocabulary=50257,
    samplers=(
        _sampler("ancestral", 1),
        _sampler("reveal_first", 1),
        _sampler("ancestral", 16),
        _sampler("reveal_first", 16),
        _sampler("two_stage", 16),
    ),
    training=Training(
        package="python",
        shape=transformer_shape(12, 12, 768, 27, 256, 64, dropout=0.05),
        held_out=130_000,
        draws=8,
        evaluation_batch=256,
        seconds=600,
        peak_learning_rate=5e-4,
    ),
)
"""For one GPU of about 140 GiB, within nine minutes."""

TINY = Sizes(
    threads=1,
    precision="float32",
    checks={
        "transformer, md4": Check(transformer_shape(1, 2, 16, 11, 8, 4, dropout=0.1), "md4"),
        "transformer, genmd4": Check(transformer_shape(1, 2, 16, 11, 8, 4, dropout=0.1), "genmd4"),
        "unet, md4": Check(unet_shape(8, 1, 4, 2, dropout=0.1), "md4"),
        "uvit, md4": Check(uvit_shape(8, 1, (16, 2, 2), 4, 2, dropout=0.1), "md4"),
    },
    compiled_checks=(("transformer, md4", "float32"),),
    speeds={
        "text8": transformer_shape(1, 2, 16, 11, 8, 2, dropout=0.1),
        "gpt2-small": transformer_shape(1, 2, 16, 500, 16, 2, dropout=0.1),
        "cifar10": unet_shape(8, 1, 4, 2, dropout=0.1),
        "imagenet64": uvit_shape(8, 1, (16, 2, 2), 4, 2, dropout=0.1),
    },
    compile=False,
    doublings=1,
    groups=2,
    steps=2,
    warm_up=1,
    chunk_shape="gpt2-small",
    chunk_bytes=(2**10, 2**26),
    sampled_vocabulary=500,
    samplers=tuple(_sampler(kind, 2, tiny=True) for kind in ("ancestral", "reveal_first")),
    training=Training(
        package="json",
        shape=transformer_shape(1, 2, 32, 27, 32, 8, dropout=0.1),
        held_out=2_000,
        draws=2,
        evaluation_batch=32,
        seconds=2,
        peak_learning_rate=1e-2,
    ),
)
"""For a rehearsal in a minute on a CPU."""
