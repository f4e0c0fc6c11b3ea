"""Speed and memory of training: the step of `mdpipe train`, optimizer and average of the weights included.

The settings `Train`, `Hardware`, `AdamW` and `Muon` have the attributes of the models in `mdpipe.params` (tested). They
exist because benchmarks also run on machines that have little more than torch.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from mdpipe.benchmarks.runner import Benchmark, Columns, Result, format_error, format_machine, to_table
from mdpipe.diffusion.objectives.base import Objective
from mdpipe.diffusion.objectives.build import build_objective
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.networks.base import Network, build_network, count_parameters
from mdpipe.networks.runtime import configure_runtime
from mdpipe.training.distributed import World
from mdpipe.training.flops import training_flops
from mdpipe.training.loop import Batch, Batches, Trainer
from mdpipe.training.muon import orthogonalize_together
from mdpipe.training.optimizer import layer_matrices
from mdpipe.training.performance import (
    get_peak_memory_mib,
    measure_peak_flops,
    synchronize,
)

if TYPE_CHECKING:
    from mdpipe.params import HardwareSettings, TrainSettings

PRECISIONS = ("float32", "bfloat16")
OBJECTIVES: dict[str, dict[str, Any]] = {
    "md4": {"schedule": {"kind": "linear"}},
    "genmd4": {"initial_exponent": 1.0},
}
"""Objectives that can be measured, with settings; GenMD4 calls its network twice per step."""


@dataclass(frozen=True)
class AdamW:
    """AdamW with the paper's settings for text8."""

    kind: str = "adamw"
    beta2: float = 0.999
    weight_decay: float = 0.03


@dataclass(frozen=True)
class Muon:
    """Muon with the default suite's settings."""

    kind: str = "muon"
    momentum: float = 0.95
    beta2: float = 0.99
    weight_decay: float = 0.03


OPTIMIZERS: dict[str, AdamW | Muon] = {"adamw": AdamW(), "muon": Muon()}
"""By kind; their numbers do not change the cost of a step."""


@dataclass(frozen=True)
class Train:
    """Optimizer and length of a training run."""

    steps: int
    batch_size: int
    learning_rate: float = 3e-4
    warmup_steps: int = 0
    optimizer: AdamW | Muon = field(default_factory=AdamW)
    gradient_clip: float | None = 1.0
    ema_decay: float = 0.9999
    checkpoint_every: int = 1
    keep_checkpoints: int = 1


@dataclass(frozen=True)
class Hardware:
    """Hardware settings of a measured training run, as params.yaml has them."""

    precision: str
    threads: int
    processes: int = 1
    strategy: str = "ddp"
    micro_batches: int = 1
    compile: bool = False
    recompute: bool = False


@dataclass(frozen=True)
class Shape:
    """A network and the shape of its data."""

    kind: str
    network: dict[str, Any]
    vocabulary: int
    shape: tuple[int, ...]
    batch: int

    @property
    def length(self) -> int:
        """Tokens per example."""
        return torch.Size(self.shape).numel()

    def build_network(self, seed: int, **changes: Any) -> Network:
        """Return the network with its initial weights, on the CPU."""
        return build_network(self.kind, self.vocabulary, self.shape, seed=seed, **self.network, **changes)

    def random_tokens(self, batch: int, seed: int) -> Tensor:
        """Return uniform tokens (B, L) on the CPU."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(self.vocabulary, (batch, self.length), generator=generator)


def transformer_shape(
    layers: int,
    heads: int,
    width: int,
    vocabulary: int,
    length: int,
    batch: int,
    *,
    time_conditioning: bool = True,
    dropout: float = 0.0,
) -> Shape:
    """Return a transformer on sequences."""
    sizes = {"layers": layers, "heads": heads, "width": width}
    network = {**sizes, "time_conditioning": time_conditioning, "dropout": dropout}
    return Shape("transformer", network, vocabulary, (length,), batch)


def unet_shape(width: int, blocks: int, edge: int, batch: int, *, dropout: float = 0.0) -> Shape:
    """Return a U-Net on color images of `edge` x `edge` pixels."""
    network = {"width": width, "blocks": blocks, "time_conditioning": True, "dropout": dropout}
    return Shape("unet", network, 256, (edge, edge, 3), batch)


def uvit_shape(
    width: int, blocks: int, middle: tuple[int, int, int], edge: int, batch: int, *, dropout: float = 0.0
) -> Shape:
    """Return a U-ViT on color images; `middle` has the width, layers and heads of its transformer."""
    middle_width, layers, heads = middle
    sizes = {"width": width, "blocks": blocks, "middle_width": middle_width, "layers": layers, "heads": heads}
    return Shape("uvit", {**sizes, "time_conditioning": True, "dropout": dropout}, 256, (edge, edge, 3), batch)


SHAPES = {
    "letters": transformer_shape(4, 4, 128, 27, 128, 8, time_conditioning=False),
    "text8-11m": transformer_shape(6, 6, 384, 27, 256, 8),
    "text8": transformer_shape(12, 12, 768, 27, 256, 8),
    "gpt2-small": transformer_shape(12, 12, 768, 50257, 1024, 8),
    "cifar10-small": unet_shape(64, 4, 32, 4),
    "cifar10": unet_shape(128, 32, 32, 4),
    "imagenet64": uvit_shape(256, 24, (768, 12, 12), 64, 1),
}
"""letters is the default suite's; text8, gpt2-small, cifar10 and imagenet64 are the paper's; the others are smaller
versions of them."""


@dataclass(frozen=True)
class TrainingBenchmark(Benchmark):
    """A network of `SHAPES` and how it is trained.

    Raises:
        ValueError: an unknown shape, precision, objective or optimizer, Muon for a U-Net, or a number below 1.
    """

    shape: str
    batch: int
    objective: str
    optimizer: str
    precision: str
    compile: bool
    recompute: bool
    steps: int
    """Steps timed, each individually."""
    warm_up: int
    """Steps before them."""
    threads: int
    device: str
    seed: int

    def __post_init__(self) -> None:
        self.require_choice("shape", SHAPES)
        self.require_choice("precision", PRECISIONS)
        self.require_choice("objective", OBJECTIVES)
        self.require_choice("optimizer", OPTIMIZERS)
        if self.optimizer == "muon" and SHAPES[self.shape].kind == "unet":
            raise ValueError(f"--optimizer muon is for matrices, and the layers of {self.shape} are convolutions")
        self.require_positive("batch", "steps", "warm_up", "threads")

    @property
    def title(self) -> str:
        """Name the measurement in error messages."""
        return f"{self.shape} by {self.optimizer} in {self.precision} at batch {self.batch}"

    def measure(self) -> Result:
        """Take the warm-up steps, then time the others one by one; time Muon's orthogonalization once more alone."""
        shape, device = SHAPES[self.shape], torch.device(self.device)
        configure_runtime(self.threads)
        peaks = {name: measure_peak_flops(device, getattr(torch, name)) for name in {"float32", self.precision}}
        network = shape.build_network(self.seed).to(device)
        flops = training_flops(network, shape.length)
        objective = build_objective(self.objective, shape.vocabulary, **OBJECTIVES[self.objective])
        steps = self.warm_up + self.steps
        train = Train(steps=steps, batch_size=self.batch, optimizer=OPTIMIZERS[self.optimizer])
        hardware = Hardware(self.precision, self.threads, compile=self.compile, recompute=self.recompute)
        step = build_step(network, objective, train, hardware, CounterRNG(self.seed, "bench"))
        tokens = shape.random_tokens(self.batch, self.seed)
        memory_before = get_peak_memory_mib(device)
        seconds = time_steps(step, lambda _, rows: Batch(tokens[rows.start : rows.stop]), steps)
        step.state.history.require_finite(steps)
        speed = summarize_speed(seconds[self.warm_up :], self.batch, shape.length, flops, peaks[self.precision])
        matrices = layer_matrices(network) if self.optimizer == "muon" else []
        orthogonalization = time_orthogonalization(matrices, device, steps)[self.warm_up :]
        mean = statistics.mean(orthogonalization)
        return {
            **speed,
            "first_step_seconds": seconds[0],
            "orthogonalization_seconds": mean,
            "orthogonalization_fraction": mean / speed["seconds_per_step"],
            "float32_peak_flops": peaks["float32"],
            "peak_mem_mib": get_peak_memory_mib(device),
            "peak_mem_mib_before": memory_before,
            "parameters": count_parameters(network) + count_parameters(objective),
        }


def build_step(
    network: Network,
    objective: Objective,
    train: Train,
    hardware: Hardware,
    noise: CounterRNG,
    world: World = World(),  # noqa: B008 (frozen)
) -> Trainer:
    """Return the step of a new training run, built in the order of `training.loop.train`."""
    settings, machine = cast("TrainSettings", train), cast("HardwareSettings", hardware)
    return Trainer.build(network, objective, settings, machine, noise, world)


def time_steps(step: Trainer, batches: Batches, groups: int, steps: int = 1) -> list[float]:
    """Return the seconds per step of each group of steps. A GPU is synchronized between groups only."""
    seconds = []
    for _ in range(groups):
        synchronize(step.state.device)
        start = perf_counter()
        for _ in range(steps):
            step.train_step(batches)
        synchronize(step.state.device)
        seconds.append((perf_counter() - start) / steps)
    return seconds


def time_orthogonalization(matrices: Sequence[Tensor], device: torch.device, steps: int) -> list[float]:
    """Return the seconds that Muon's orthogonalization takes in each of several steps; zeros without matrices."""
    by_shape: dict[torch.Size, list[Tensor]] = {}
    for matrix in matrices:
        by_shape.setdefault(matrix.shape, []).append(matrix.detach().clone())
    if not by_shape:
        return [0.0] * steps
    seconds = []
    for _ in range(steps):
        synchronize(device)
        start = perf_counter()
        for same_shape in by_shape.values():
            orthogonalize_together(same_shape)
        synchronize(device)
        seconds.append(perf_counter() - start)
    return seconds


def summarize_speed(seconds: Sequence[float], batch: int, length: int, flops: float, peak_flops: float) -> Result:
    """Return the speed of steps that took `seconds` each.

    Args:
        seconds: per step, measured several times.
        batch: examples per step.
        length: tokens per example.
        flops: per token, as `training_flops` counts them.
        peak_flops: FLOP/s of a large matrix product in the same precision.
    """
    mean = statistics.mean(seconds)
    flops_per_second = flops * batch * length / mean
    return {
        "tokens_per_second": batch * length / mean,
        "examples_per_second": batch / mean,
        "seconds_per_step": mean,
        "seconds_stderr": statistics.stdev(seconds) / len(seconds) ** 0.5 if len(seconds) > 1 else None,
        "flops_per_second": flops_per_second,
        "peak_flops": peak_flops,
        "mfu": flops_per_second / peak_flops,
    }


COLUMNS: Columns = {
    "shape": lambda result: result["shape"],
    "parameters": lambda result: f"{result['parameters']:,}",
    "batch": lambda result: str(result["batch"]),
    "optimizer": lambda result: result["optimizer"],
    "precision": lambda result: result["precision"],
    "with": lambda result: " ".join(name for name in ("compile", "recompute") if result[name]),
    "tokens/s": lambda result: f"{result['tokens_per_second']:,.0f}",
    "examples/s": lambda result: f"{result['examples_per_second']:,.3g}",
    "ms per step": lambda result: format_error(
        1000 * result["seconds_per_step"], None if result["seconds_stderr"] is None else 1000 * result["seconds_stderr"]
    ),
    "orthogonalization": lambda result: (
        f"{result['orthogonalization_fraction']:.0%}" if result["optimizer"] == "muon" else ""
    ),
    "GFLOP/s": lambda result: f"{result['flops_per_second'] / 1e9:,.1f}",
    "matmul peak": lambda result: f"{result['peak_flops'] / 1e9:,.0f}",
    "MFU": lambda result: f"{result['mfu']:.0%}",
    "peak MiB": lambda result: f"{result['peak_mem_mib']:,.0f}",
}


def to_markdown(machine: Result, command: str, results: Sequence[Result]) -> str:
    """Return a page with the table and what a reader needs to judge and repeat it."""
    first = results[0]
    return f"""# Speed of training

    {command}

{format_machine(machine)}
The step of `mdpipe train` on random tokens, with {first["objective"]}: the mean of {first["steps"]} steps \
after {first["warm_up"]}, and its standard error.

{to_table(results, COLUMNS)}
FLOP/s count the network's dense products, forward and backward, over all positions; the head runs at masked positions
only, so what it saves counts as done. The matmul peak is the speed of a large matrix product in the same process and
precision; MFU is relative to it. Orthogonalization is a part of Muon's step, timed separately afterwards, as a fraction
of the step. Memory is the largest resident set of a process that does nothing else (on a GPU, the most that its tensors
took).
"""
