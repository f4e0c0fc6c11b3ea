"""How fast training steps are, and the memory they take: eager and compiled, at growing batches."""

from collections.abc import Callable
from functools import partial

import torch

from mdpipe.benchmarks.gpu.part import Report, Row, free_memory, reset_peak_memory
from mdpipe.benchmarks.gpu.sizes import DATA_SHEET_PEAKS, OBJECTIVES, Sizes
from mdpipe.benchmarks.train_configuration import Shape
from mdpipe.benchmarks.training_step import Hardware, Train, build_step, summarize_speed, time_steps
from mdpipe.diffusion.noise import Noise
from mdpipe.diffusion.objectives import masked
from mdpipe.diffusion.objectives.build import build_objective
from mdpipe.networks.build import build_network, parameter_count
from mdpipe.training.flops import training_flops
from mdpipe.training.peak import product_peak
from mdpipe.training.progress import peak_memory
from mdpipe.training.step import Batch

GAIN = 1.03
"""A doubled batch that is not faster by this factor ends the doubling."""
EAGER_SECONDS, COMPILED_SECONDS = 8, 30
"""About what a measurement takes before one was made."""


def run(report: Report) -> None:
    """Measure every network at its first batch, then the sizes of the head's chunks, then doubled batches in turn."""
    sizes, device = report.sizes, report.device
    dtype = getattr(torch, sizes.precision)
    report.document |= {
        "precision": sizes.precision,
        "matmul_peak": product_peak(device, dtype),
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
    """Return the FLOP/s that the data sheet gives for the device's bfloat16 products, if it is known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in DATA_SHEET_PEAKS.items() if part in name), None)


class Measurement:
    """A training run on random tokens whose steps are timed."""

    def __init__(self, report: Report, shape: Shape, batch: int, compile: bool) -> None:
        sizes = report.sizes
        reset_peak_memory(report.device)
        network = build_network(shape.kind, shape.vocabulary, shape.shape, seed=0, **shape.network).to(report.device)
        self.report = report
        self.batch = batch
        self.length = torch.Size(shape.shape).numel()
        self.flops = training_flops(network, self.length)
        self.parameters = parameter_count(network)
        objective = build_objective("md4", shape.vocabulary, **OBJECTIVES["md4"])
        train = Train(steps=count_steps(sizes), batch_size=batch)
        hardware = Hardware(sizes.precision, sizes.threads, compile=compile)
        self.step = build_step(network, objective, train, hardware, Noise(0, "bench"))
        generator = torch.Generator().manual_seed(0)
        self._tokens = torch.randint(shape.vocabulary, (batch, self.length), generator=generator)

    def measure_speed(self) -> Row:
        """Time the steps after some that warm up, the first of which compiles."""
        sizes, document = self.report.sizes, self.report.document
        first, *_ = time_steps(self.step, self._batches, sizes.warm_up)
        seconds = time_steps(self.step, self._batches, sizes.groups, sizes.steps)
        self.step.state.record.check(self.step.state.step)
        speed = summarize_speed(seconds, self.batch, self.length, self.flops, document["matmul_peak"])
        data_sheet = document["data_sheet_peak"]
        return {
            **speed,
            "share_of_data_sheet_peak": None if data_sheet is None else speed["flops_per_second"] / data_sheet,
            "first_step_seconds": first,
            "memory_mib": peak_memory(self.report.device),
            "parameters": self.parameters,
        }

    def measure_chunks(self, size: int) -> Row:
        """Time the steps with chunks of logits of at most so many bytes in float32."""
        before = masked.CHUNK_BYTES
        reset_peak_memory(self.report.device)
        masked.CHUNK_BYTES = size
        try:
            return self.measure_speed()
        finally:
            masked.CHUNK_BYTES = before

    def _batches(self, _: int, rows: range) -> Batch:
        return Batch(self._tokens[rows.start : rows.stop])


def measure_speed(report: Report, shape: Shape, batch: int, compile: bool) -> Row:
    """Return the speed of a new training run."""
    return Measurement(report, shape, batch, compile).measure_speed()


def count_steps(sizes: Sizes) -> int:
    """Return how many steps a measurement can take: some for the batch, and as many for each size of chunks."""
    return (1 + len(sizes.chunk_bytes)) * (sizes.warm_up + sizes.groups * sizes.steps)


def measure_compiled(report: Report, name: str, shape: Shape, chunk_bytes: tuple[int, ...]) -> Row | None:
    """Add the row of a network's first batch, compiled if that is asked for, and rows for sizes of chunks."""
    compile, made = report.sizes.compile, []

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
    sizes = report.sizes
    labels = {"network": name, "batch": batch, "compiled": sizes.compile}
    row = report.attempt(labels, partial(measure_speed, report, sizes.speeds[name], batch, sizes.compile), seconds)
    free_memory()
    return row


def grow_batches(rows: dict[str, Row | None], doublings: int, measure: Callable[[str, int, float], Row | None]) -> None:
    """Double the batch of every network in turn, until memory or speed ends.

    Args:
        rows: for each network the row of its first batch, None where that failed.
        doublings: at most so many.
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
