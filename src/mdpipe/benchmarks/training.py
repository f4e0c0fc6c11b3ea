"""Speed and memory of training: the step of `mdpipe train`, optimizer and average of the weights included."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import Tensor

from mdpipe.benchmarks.runner import PRECISIONS, Benchmark, Columns, Result, format_error, format_machine, to_table
from mdpipe.diffusion.objectives.base import build_objective
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.networks.base import Network, build_network, count_parameters
from mdpipe.networks.runtime import configure_runtime
from mdpipe.params.diffusion import ObjectiveConfig
from mdpipe.params.networks import NetworkConfig, TransformerConfig, UNetConfig, UViTConfig
from mdpipe.params.training import HardwareConfig, OptimizerConfig, TrainConfig
from mdpipe.training.loop import Batch, Batches, Trainer
from mdpipe.training.muon import orthogonalize_together
from mdpipe.training.optimizer import layer_matrices
from mdpipe.training.performance import get_peak_memory_mib, measure_peak_flops, synchronize, training_flops

OBJECTIVES = ("md4", "genmd4")
"""Objectives that can be measured; GenMD4 calls its network twice per step."""


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

    def build_network(self, seed: int, *, causal: bool = False) -> Network:
        """Return the network with its initial weights, on the CPU."""
        return build_network(self.network, self.vocab_size, self.shape, seed=seed, causal=causal)

    def random_tokens(self, batch: int, seed: int) -> Tensor:
        """Return uniform tokens (B, L) on the CPU."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(self.vocab_size, (batch, self.length), generator=generator)


SHAPES = {
    "chars": Shape(TransformerConfig(num_layers=4, num_heads=4, hidden_size=128), 27, (128,), 8),
    "text8-11m": Shape(
        TransformerConfig(num_layers=6, num_heads=6, hidden_size=384, time_conditioning=True), 27, (256,), 8
    ),
    "text8": Shape(
        TransformerConfig(num_layers=12, num_heads=12, hidden_size=768, time_conditioning=True), 27, (256,), 8
    ),
    "gpt2-small": Shape(
        TransformerConfig(num_layers=12, num_heads=12, hidden_size=768, time_conditioning=True), 50257, (1024,), 8
    ),
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
        ValueError: an unknown shape, precision, objective or optimizer, Muon for a U-Net, or a number below 1.
    """

    shape: str
    batch: int
    objective: str
    optimizer: str
    precision: str
    compile: bool
    activation_checkpointing: bool
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
        self.require_choice("optimizer", OptimizerConfig.kinds)
        self.require_positive("batch", "steps", "warm_up", "threads")

    @property
    def title(self) -> str:
        """Name the measurement in error messages."""
        return f"{self.shape} by {self.optimizer} in {self.precision} at batch {self.batch}"

    def measure(self) -> Result:
        """Take the warm-up steps, then time the others one by one; time Muon's orthogonalization separately, too."""
        shape, device = SHAPES[self.shape], torch.device(self.device)
        configure_runtime(self.threads)
        peaks = {name: measure_peak_flops(device, getattr(torch, name)) for name in {"float32", self.precision}}
        network = shape.build_network(self.seed).to(device)
        flops = training_flops(network, shape.length)
        objective = build_objective(ObjectiveConfig.parse(self.objective), shape.vocab_size)
        steps = self.warm_up + self.steps
        optimizer = OptimizerConfig.parse(self.optimizer)
        train = TrainConfig(steps=steps, batch_size=self.batch, warmup_steps=0, optimizer=optimizer)
        hardware = HardwareConfig.model_validate(
            {
                "precision": self.precision,
                "threads": self.threads,
                "compile": self.compile,
                "activation_checkpointing": self.activation_checkpointing,
            }
        )
        step = Trainer.build(network, objective, train, hardware, CounterRNG(self.seed, "bench"))
        tokens = shape.random_tokens(self.batch, self.seed)
        memory_before = get_peak_memory_mib(device)
        seconds = time_steps(step, lambda _, rows: Batch(tokens[rows.start : rows.stop]), steps)
        step.state.history.require_finite(steps)
        speed = summarize_speed(seconds[self.warm_up :], self.batch, shape.length, flops, peaks[self.precision])
        matrices = layer_matrices(network) if self.optimizer != "adamw" else []
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
    "with": lambda result: " ".join(name for name in ("compile", "activation_checkpointing") if result[name]),
    "tokens/s": lambda result: f"{result['tokens_per_second']:,.0f}",
    "examples/s": lambda result: f"{result['examples_per_second']:,.3g}",
    "ms per step": lambda result: format_error(
        1000 * result["seconds_per_step"], None if result["seconds_stderr"] is None else 1000 * result["seconds_stderr"]
    ),
    "orthogonalization": lambda result: (
        f"{result['orthogonalization_fraction']:.0%}" if result["optimizer"] != "adamw" else ""
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
