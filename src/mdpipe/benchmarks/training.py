"""Speed and memory of training: the step of `mdpipe train`, optimizer and average of the weights included."""

import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from time import perf_counter

import torch
from torch import Tensor

from mdpipe.benchmarks.runner import Benchmark, Result
from mdpipe.benchmarks.settings import SHAPES, Shape, TrainingSettings
from mdpipe.diffusion.objectives.base import Objective
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.networks.base import Network, count_parameters
from mdpipe.networks.runtime import configure_runtime
from mdpipe.params.diffusion import ObjectiveConfig
from mdpipe.params.training import HardwareConfig, OptimizerConfig, TrainConfig
from mdpipe.reporting.markdown import format_measurement
from mdpipe.training.loop import Batch, Batches, Trainer
from mdpipe.training.muon import orthogonalize_together
from mdpipe.training.optimizer import layer_matrices
from mdpipe.training.performance import get_peak_memory_mib, measure_peak_flops, synchronize, training_flops


def measure(settings: TrainingSettings) -> Result:
    """Make the process deterministic, as stages are, and measure."""
    configure_runtime(settings.threads)
    return measure_here(settings)


def measure_here(settings: TrainingSettings) -> Result:
    """Take the warm-up steps, then time groups of the others; time Muon's orthogonalization separately, too.

    The first of the warm-up steps compiles.
    """
    shape, device = SHAPES[settings.shape], torch.device(settings.device)
    peaks = {name: measure_peak_flops(device, getattr(torch, name)) for name in {"float32", settings.precision}}
    network = shape.build_network(settings.seed).to(device)
    flops = training_flops(network, shape.length) / shape.length
    steps = settings.warm_up + settings.steps
    optimizer = OptimizerConfig.parse(settings.optimizer)
    train = TrainConfig(steps=steps, batch_size=settings.batch, warmup_steps=0, optimizer=optimizer)
    hardware = HardwareConfig.model_validate(
        {key: getattr(settings, key) for key in ("precision", "threads", "compile", "activation_checkpointing")}
    )
    objective = ObjectiveConfig.parse(settings.objective)
    trainer, batches = start_training(network, shape, objective, train, hardware, settings.seed)
    memory_before = get_peak_memory_mib(device)
    first, *_ = time_steps(trainer, batches, settings.warm_up)
    seconds = time_steps(trainer, batches, settings.steps // settings.group, settings.group)
    trainer.state.history.require_finite(steps)
    speed = summarize_speed(seconds, settings.batch, shape.length, flops, peaks[settings.precision])
    matrices = layer_matrices(network) if settings.optimizer != "adamw" else []
    orthogonalization = time_orthogonalization(matrices, device, settings.warm_up, settings.steps)
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


BENCHMARK = Benchmark(
    measure=measure,
    heading="Speed of training",
    title="{shape} by {optimizer} in {precision} at batch {batch}",
    columns={
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
    },
    page="""\
The step of `mdpipe train` on random tokens, with {objective}: the mean of {steps} steps after {warm_up}, and its \
standard error.

{table}
FLOP/s count the network's dense products, forward and backward, over all positions; the head runs at masked positions
only, so what it saves counts as done. The matmul peak is the speed of a large matrix product in the same process and
precision; MFU is relative to it. Orthogonalization is a part of Muon's step, timed separately afterwards, as a fraction
of the step. Memory is the largest resident set of a process that does nothing else (on a GPU, the most that its tensors
took).
""",
)


def start_training(
    network: Network,
    shape: Shape,
    objective: ObjectiveConfig,
    train: TrainConfig,
    hardware: HardwareConfig,
    seed: int = 0,
) -> tuple[Trainer, Batches]:
    """Return a new training run and its batches, which are all the same uniform tokens."""
    built = Objective.build(objective, shape.vocab_size)
    trainer = Trainer(network, built, train, hardware, CounterRNG(seed, "bench"))
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


def time_orthogonalization(matrices: Sequence[Tensor], device: torch.device, warm_up: int, steps: int) -> float:
    """Return the mean seconds that Muon's orthogonalization takes in a step after the warm-up; 0 without matrices."""
    by_shape = defaultdict(list)
    for matrix in matrices:
        by_shape[matrix.shape].append(matrix.detach().clone())
    seconds = time_calls(
        lambda _: [orthogonalize_together(same) for same in by_shape.values()], device, warm_up + steps
    )
    return statistics.mean(seconds[warm_up:]) if by_shape else 0.0


def summarize_speed(seconds: Sequence[float], batch: int, length: int, flops: float, peak_flops: float) -> Result:
    """Return the speed of steps that took `seconds` each, with this many `flops` per token."""
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
