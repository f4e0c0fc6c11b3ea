"""Speed and memory of training: the step of `mdpipe train`, optimizer and average of the weights included."""

import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import ClassVar

import torch
from torch import Tensor

from mdpipe.benchmarks.runner import PRECISIONS, Benchmark, Result
from mdpipe.diffusion.objectives.base import build_objective
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.networks.base import Network, build_network, count_parameters
from mdpipe.networks.runtime import configure_runtime
from mdpipe.params.diffusion import ObjectiveConfig
from mdpipe.params.networks import NetworkConfig, TransformerConfig, UNetConfig, UViTConfig
from mdpipe.params.training import HardwareConfig, OptimizerConfig, TrainConfig
from mdpipe.reporting.markdown import Columns, format_measurement
from mdpipe.training.distributed import World
from mdpipe.training.loop import Batch, Batches, Trainer
from mdpipe.training.muon import orthogonalize_together
from mdpipe.training.optimizer import layer_matrices
from mdpipe.training.performance import get_peak_memory_mib, measure_peak_flops, synchronize, training_flops


@dataclass(frozen=True)
class Shape:
    """A network and the shape of its data."""

    network: NetworkConfig
    vocab_size: int
    shape: tuple[int, ...]
    batch: int

    @property
    def length(self) -> int:
        """Tokens per example."""
        return torch.Size(self.shape).numel()

    def shrink(self) -> "Shape":
        """Return a tiny network of the same kind with data of the same kind, for a rehearsal on a CPU."""
        sizes = {name: size for name, size in TINY_SIZES.items() if name in type(self.network).model_fields}
        shape = (16,) if len(self.shape) == 1 else (4, 4, 3)
        return Shape(self.network.model_copy(update=sizes), min(self.vocab_size, 500), shape, batch=2)

    def build_network(self, seed: int, *, causal: bool = False) -> Network:
        """Return the network with its initial weights, on the CPU."""
        return build_network(self.network, self.vocab_size, self.shape, seed=seed, causal=causal)


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
class TrainingBenchmark(Benchmark):
    """A network of `SHAPES` and how it is trained.

    Raises:
        ValueError: an unknown shape, precision, objective or optimizer.
    """

    shape: str
    batch: int
    """Examples per step; 0 for the shape's."""
    objective: str
    """GenMD4 calls its network twice per step."""
    optimizer: str
    precision: str
    compile: bool
    activation_checkpointing: bool
    steps: int
    """Steps timed."""
    warm_up: int
    """Steps before them, the first of which compiles."""
    threads: int
    device: str
    seed: int = 0
    group: int = 1
    """Steps timed together; a GPU is synchronized between groups only."""

    title: ClassVar[str] = "{shape} by {optimizer} in {precision} at batch {batch}"
    heading: ClassVar[str] = "Speed of training"
    columns: ClassVar[Columns] = {
        "shape": "{shape}",
        "parameters": "{parameters:,}",
        "batch": "{batch}",
        "optimizer": "{optimizer}",
        "precision": "{precision}",
        "with": lambda result: " ".join(name for name in ("compile", "activation_checkpointing") if result[name]),
        "tokens/s": "{tokens_per_second:,.0f}",
        "examples/s": "{examples_per_second:,.3g}",
        "ms per step": lambda result: format_measurement(
            1000 * result["seconds_per_step"],
            None if result["seconds_stderr"] is None else 1000 * result["seconds_stderr"],
        ),
        "orthogonalization": lambda result: (
            f"{result['orthogonalization_fraction']:.0%}" if result["optimizer"] != "adamw" else ""
        ),
        "GFLOP/s": lambda result: f"{result['flops_per_second'] / 1e9:,.1f}",
        "matmul peak": lambda result: f"{result['peak_flops'] / 1e9:,.0f}",
        "MFU": "{mfu:.0%}",
        "peak MiB": "{peak_mem_mib:,.0f}",
    }

    choices: ClassVar[Mapping[str, Collection[str]]] = {
        "shape": SHAPES,
        "precision": PRECISIONS,
        "objective": ("md4", "genmd4"),
        "optimizer": OptimizerConfig.kinds,
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch == 0:
            object.__setattr__(self, "batch", SHAPES[self.shape].batch)

    def measure(self) -> Result:
        """Make the process deterministic, as stages are, and measure."""
        configure_runtime(self.threads)
        return self.measure_here()

    def measure_here(self) -> Result:
        """Take the warm-up steps, then time groups of the others; time Muon's orthogonalization separately, too."""
        shape, device = SHAPES[self.shape], torch.device(self.device)
        peaks = {name: measure_peak_flops(device, getattr(torch, name)) for name in {"float32", self.precision}}
        network = shape.build_network(self.seed).to(device)
        flops = training_flops(network, shape.length)
        steps = self.warm_up + self.steps
        train = TrainConfig(
            steps=steps, batch_size=self.batch, warmup_steps=0, optimizer=OptimizerConfig.parse(self.optimizer)
        )
        keys = ("precision", "threads", "compile", "activation_checkpointing")
        hardware = HardwareConfig.model_validate({key: getattr(self, key) for key in keys})
        objective = ObjectiveConfig.parse(self.objective)
        trainer, batches = start_training(network, shape, objective, train, hardware, self.seed)
        memory_before = get_peak_memory_mib(device)
        first, *_ = time_steps(trainer, batches, self.warm_up)
        seconds = time_steps(trainer, batches, self.steps // self.group, self.group)
        trainer.state.history.require_finite(steps)
        speed = summarize_speed(seconds, self.batch, shape.length, flops, peaks[self.precision])
        matrices = layer_matrices(network) if self.optimizer != "adamw" else []
        orthogonalization = statistics.mean(time_orthogonalization(matrices, device, steps)[self.warm_up :])
        return {
            **speed,
            "first_step_seconds": first,
            "orthogonalization_seconds": orthogonalization,
            "orthogonalization_fraction": orthogonalization / speed["seconds_per_step"],
            "float32_peak_flops": peaks["float32"],
            "peak_mem_mib": get_peak_memory_mib(device),
            "peak_mem_mib_before": memory_before,
            "parameters": count_parameters(network) + count_parameters(trainer.state.objective),
        }

    @classmethod
    def describe(cls, first: Result, table: str) -> str:
        """Return the page's text."""
        return f"""\
The step of `mdpipe train` on random tokens, with {first["objective"]}: the mean of {first["steps"]} steps \
after {first["warm_up"]}, and its standard error.

{table}
FLOP/s count the network's dense products, forward and backward, over all positions; the head runs at masked positions
only, so what it saves counts as done. The matmul peak is the speed of a large matrix product in the same process and
precision; MFU is relative to it. Orthogonalization is a part of Muon's step, timed separately afterwards, as a fraction
of the step. Memory is the largest resident set of a process that does nothing else (on a GPU, the most that its tensors
took).
"""


def start_training(
    network: Network,
    shape: Shape,
    objective: ObjectiveConfig,
    train: TrainConfig,
    hardware: HardwareConfig,
    seed: int = 0,
    world: World = World(),  # noqa: B008 (frozen)
) -> tuple[Trainer, Batches]:
    """Return a new training run and its batches, which are all the same uniform tokens."""
    built = build_objective(objective, shape.vocab_size)
    trainer = Trainer(network, built, train, hardware, CounterRNG(seed, "bench"), world)
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(shape.vocab_size, (train.batch_size, shape.length), generator=generator)
    return trainer, lambda _, rows: Batch(tokens[rows.start : rows.stop])


def time_steps(trainer: Trainer, batches: Batches, groups: int, steps: int = 1) -> list[float]:
    """Return the seconds per step of each group of steps. A GPU is synchronized between groups only."""

    def take(_: int) -> None:
        for _ in range(steps):
            trainer.train_step(batches)

    return [seconds / steps for seconds in time_calls(take, trainer.state.device, groups)]


def time_calls(call: Callable[[int], object], device: torch.device, count: int) -> list[float]:
    """Return the seconds that each of several calls takes, until the device has done its work."""
    seconds = []
    for number in range(count):
        synchronize(device)
        start = perf_counter()
        call(number)
        synchronize(device)
        seconds.append(perf_counter() - start)
    return seconds


def standard_error(values: Sequence[float]) -> float | None:
    """Return the standard error of the mean, None for one value."""
    return statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else None


def time_orthogonalization(matrices: Sequence[Tensor], device: torch.device, steps: int) -> list[float]:
    """Return the seconds that Muon's orthogonalization takes in each of several steps; zeros without matrices."""
    by_shape: dict[torch.Size, list[Tensor]] = {}
    for matrix in matrices:
        by_shape.setdefault(matrix.shape, []).append(matrix.detach().clone())
    if not by_shape:
        return [0.0] * steps
    return time_calls(lambda _: [orthogonalize_together(same) for same in by_shape.values()], device, steps)


def summarize_speed(seconds: Sequence[float], batch: int, length: int, flops: float, peak_flops: float) -> Result:
    """Return the speed of steps that took `seconds` each, with `flops` per token as `training_flops` counts them."""
    mean = statistics.mean(seconds)
    flops_per_second = flops * batch * length / mean
    return {
        "tokens_per_second": batch * length / mean,
        "examples_per_second": batch / mean,
        "seconds_per_step": mean,
        "seconds_stderr": standard_error(seconds),
        "flops_per_second": flops_per_second,
        "peak_flops": peak_flops,
        "mfu": flops_per_second / peak_flops,
    }
