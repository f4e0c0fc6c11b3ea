"""Speed and memory of training steps, eager and compiled, at growing batches; and the speed of samplers."""

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial

import torch

from mdpipe.benchmarks.gpu.report import Report, Row, free_memory, reset_peak_memory
from mdpipe.benchmarks.gpu.sizes import DATA_SHEET_PEAKS, Sizes
from mdpipe.benchmarks.training import Shape, summarize_speed, time_steps
from mdpipe.diffusion.objectives import md4
from mdpipe.diffusion.objectives.base import build_objective
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.networks.base import count_parameters
from mdpipe.params.diffusion import MD4Config
from mdpipe.params.training import TrainConfig
from mdpipe.training.loop import Batch, Trainer
from mdpipe.training.performance import get_peak_memory_mib, measure_peak_flops, training_flops

GAIN = 1.03
"""A doubled batch that is not faster by this factor ends the doubling."""
EAGER_SECONDS, COMPILED_SECONDS = 8, 30
"""Estimates of the duration of a measurement before one was made."""


def run(report: Report) -> None:
    """Measure every network at its first batch, then the sizes of the head's chunks, then doubled batches in turn."""
    sizes, device = report.sizes, report.device
    dtype = getattr(torch, sizes.hardware.precision)
    report.document |= {
        "precision": sizes.hardware.precision,
        "matmul_peak": measure_peak_flops(device, dtype),
        "data_sheet_peak": find_data_sheet_peak(device),
    }
    for name, shape in sizes.speeds.items():
        labels = {"network": name, "batch": shape.batch, "compiled": False}
        report.attempt(labels, partial(measure_speed, report, shape, shape.batch, False), EAGER_SECONDS)
        free_memory()
    rows = {}
    for name, shape in sizes.speeds.items():
        rows[name] = measure_compiled(report, name, shape, sizes.chunk_bytes if name == sizes.chunk_shape else ())
    grow_batches(rows, sizes.doublings, lambda name, batch, seconds: measure_batch(report, name, batch, seconds))


def find_data_sheet_peak(device: torch.device) -> float | None:
    """Return the data sheet's FLOP/s of bfloat16 products on the device, or None if it is not known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in DATA_SHEET_PEAKS.items() if part in name), None)


class Measurement:
    """A training run on random tokens whose steps are timed."""

    def __init__(self, report: Report, shape: Shape, batch: int, compile: bool) -> None:
        sizes = report.sizes
        reset_peak_memory(report.device)
        network = shape.build_network(seed=0).to(report.device)
        self.report = report
        self.batch = batch
        self.length = shape.length
        self.flops = training_flops(network, self.length)
        self.parameters = count_parameters(network)
        objective = build_objective(MD4Config(), shape.vocab_size)
        train = TrainConfig(steps=count_steps(sizes), batch_size=batch, warmup_steps=0)
        hardware = sizes.hardware.model_copy(update={"compile": compile})
        self.step = Trainer.build(network, objective, train, hardware, CounterRNG(0, "bench"))
        self._tokens = shape.random_tokens(batch, seed=0)

    def measure_speed(self) -> Row:
        """Time the steps after some that warm up, the first of which compiles."""
        sizes, document = self.report.sizes, self.report.document
        first, *_ = time_steps(self.step, self._batches, sizes.warm_up)
        seconds = time_steps(self.step, self._batches, sizes.groups, sizes.steps)
        self.step.state.history.require_finite(self.step.state.step)
        speed = summarize_speed(seconds, self.batch, self.length, self.flops, document["matmul_peak"])
        data_sheet = document["data_sheet_peak"]
        return {
            **speed,
            "mfu_data_sheet": None if data_sheet is None else speed["flops_per_second"] / data_sheet,
            "first_step_seconds": first,
            "peak_mem_mib": get_peak_memory_mib(self.report.device),
            "parameters": self.parameters,
        }

    def measure_chunks(self, size: int) -> Row:
        """Time the steps with chunks of logits of at most `size` bytes in float32."""
        before = md4.CHUNK_BYTES
        reset_peak_memory(self.report.device)
        md4.CHUNK_BYTES = size
        try:
            return self.measure_speed()
        finally:
            md4.CHUNK_BYTES = before

    def _batches(self, _: int, rows: range) -> Batch:
        return Batch(self._tokens[rows.start : rows.stop])


def measure_speed(report: Report, shape: Shape, batch: int, compile: bool) -> Row:
    """Return the speed of a new training run."""
    return Measurement(report, shape, batch, compile).measure_speed()


def count_steps(sizes: Sizes) -> int:
    """Return the number of steps of a measurement: those of the batch, and as many for each chunk size."""
    return (1 + len(sizes.chunk_bytes)) * (sizes.warm_up + sizes.groups * sizes.steps)


def measure_compiled(report: Report, name: str, shape: Shape, chunk_bytes: tuple[int, ...]) -> Row | None:
    """Add the row of a network's first batch, compiled if the sizes say so, and rows for sizes of chunks."""
    compile, made = report.sizes.hardware.compile, []

    def measure() -> Row:
        made.append(Measurement(report, shape, shape.batch, compile))
        return made[0].measure_speed()

    labels = {"network": name, "batch": shape.batch, "compiled": compile}
    row = report.attempt(labels, measure, COMPILED_SECONDS if compile else 0)
    for size in chunk_bytes if row else ():
        report.attempt({**labels, "chunk_bytes": size}, partial(made[0].measure_chunks, size), EAGER_SECONDS)
    made.clear()
    free_memory()
    return row


def measure_batch(report: Report, name: str, batch: int, seconds: float) -> Row | None:
    """Add the row of a network at another batch."""
    shape, compile = report.sizes.speeds[name], report.sizes.hardware.compile
    labels = {"network": name, "batch": batch, "compiled": compile}
    row = report.attempt(labels, partial(measure_speed, report, shape, batch, compile), seconds)
    free_memory()
    return row


def grow_batches(rows: dict[str, Row | None], doublings: int, measure: Callable[[str, int, float], Row | None]) -> None:
    """Double the batch of every network in turn, until memory or speed ends.

    Args:
        rows: for each network the row of its first batch, None where that failed.
        doublings: the most that are tried.
        measure: called with network, batch and the seconds that it takes at least; returns a row or None.
    """
    best = {name: row for name, row in rows.items() if row is not None}
    for _ in range(doublings):
        for name, before in list(best.items()):
            after = measure(name, 2 * before["batch"], before["wall_seconds"])
            if after is None or after["tokens_per_second"] < GAIN * before["tokens_per_second"]:
                del best[name]
            else:
                best[name] = after


def run_samplers(report: Report) -> None:
    """Measure every sampler of the sizes, in the precision and with the steps that it says."""
    torch.set_deterministic_debug_mode("default")  # As `mdpipe bench sample` measures.
    for benchmark in report.sizes.samplers:
        here = replace(benchmark, device=report.device.type)
        reset_peak_memory(report.device)
        report.attempt(asdict(here), here.measure)
        free_memory()
