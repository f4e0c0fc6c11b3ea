"""Measurements of a GPU run: training steps at growing batches, samplers, and a training run with its bound."""

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch

from mdpipe.benchmarks.corpora import write_docstrings
from mdpipe.benchmarks.gpu import NO_COMPILER, THREADS, Report, free_memory, logger, reset_peak_memory, run_part
from mdpipe.benchmarks.runner import Result
from mdpipe.benchmarks.sampling import SamplingBenchmark
from mdpipe.benchmarks.training import SHAPES, Shape, summarize_speed, time_steps
from mdpipe.data.dataset import EncodedDataset
from mdpipe.data.training_batches import training_batch
from mdpipe.diffusion.objectives import md4
from mdpipe.diffusion.objectives.base import build_objective
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.evaluation.likelihood import likelihood_bound
from mdpipe.networks.base import Network, count_parameters
from mdpipe.params import EstimatorConfig, TrainConfig
from mdpipe.params.diffusion import MD4Config
from mdpipe.params.networks import TransformerConfig, UNetConfig, UViTConfig
from mdpipe.params.training import HardwareConfig
from mdpipe.training.loop import Batch, Batches, Trainer
from mdpipe.training.performance import find_compiler_problem, get_peak_memory_mib, measure_peak_flops, training_flops
from mdpipe.training.state import TrainingState

CHUNKED = "gpt2-small"
"""The network whose head is measured with chunks of several sizes."""
GAIN = 1.03
"""A doubled batch that is not faster by this factor ends the doubling."""
EAGER_SECONDS, COMPILED_SECONDS = 8, 30
"""Estimates of the duration of a measurement before one was made."""

SEED = 0
FIRST_STEPS, TIMED_STEPS = 3, 10
"""Taken to compile, and then to measure the speed; the run then starts again from its initial weights."""
MARGIN = 0.9
"""The fraction of the remaining time that the steps are planned for."""
SPARE_SECONDS = 5.0
"""For the time between training and evaluation, and for an evaluation that takes longer than planned."""
WARMUP, AVERAGED = 0.1, 0.1
"""Fractions of the steps: the warm-up, and the horizon of the averaged weights."""
CURVE = 40
"""Approximate number of points of the training curve."""
SECONDS_BETWEEN_LINES = 10.0

DATA_SHEET_PEAKS = {"H200": 989.4e12, "H100 80GB HBM3": 989.4e12, "A100": 312e12}
"""FLOP/s of dense bfloat16 products by the data sheets of NVIDIA's SXM modules; keys are parts of device names."""

SAMPLING = SamplingBenchmark(
    "ancestral", num_layers=12, num_heads=12, hidden_size=768, repeats=2, threads=THREADS, dtype="bfloat16"
)
SAMPLED = (
    ("ancestral_stepwise", 1),
    ("ancestral", 1),
    ("ancestral_stepwise", 16),
    ("ancestral", 16),
    ("two_stage", 16),
)
"""Samplers and batches."""


WITH_DROPOUT = replace(SHAPES["text8"], network=SHAPES["text8"].network.model_copy(update={"dropout": 0.05}), batch=64)


@dataclass(frozen=True)
class Training:
    """The training run at the end, on text that every machine has."""

    package: str = "python"
    """Whose docstrings are the text; "python" is the standard library."""
    shape: Shape = WITH_DROPOUT
    held_out: int = 130_000
    """Approximate number of characters that the bound is measured on."""
    num_mc_samples: int = 8
    """Monte Carlo samples of the bound per example."""
    evaluation_batch: int = 256
    seconds: float = 600
    """Most that its steps may take."""
    peak_learning_rate: float = 5e-4


@dataclass(frozen=True)
class Sizes:
    """Settings of the measurements; the defaults are for one GPU of about 140 GiB, within nine minutes."""

    hardware: HardwareConfig
    speeds: dict[str, Shape]
    """Networks by name; a shape's batch is where the doubling begins."""
    doublings: int = 4
    groups: int = 3
    steps: int = 5
    """Steps of each of the `groups` that are timed."""
    warm_up: int = 3
    chunk_bytes: tuple[int, ...] = (2**24, 2**26, 2**28, 2**30, 2**34)
    """Sizes of the chunks of the head of `CHUNKED` that are measured."""
    samplers: tuple[SamplingBenchmark, ...] = tuple(
        replace(SAMPLING, sampler=kind, batch=batch) for kind, batch in SAMPLED
    )
    training: Training = Training()


FULL = Sizes(
    HardwareConfig(precision="bfloat16", threads=THREADS, compile=True),
    {
        "text8": replace(SHAPES["text8"], batch=128),
        "gpt2-small": replace(SHAPES["gpt2-small"], batch=32),
        "cifar10": replace(SHAPES["cifar10"], batch=128),
        "imagenet64": replace(SHAPES["imagenet64"], batch=16),
    },
)
TINY_TRANSFORMER = TransformerConfig(num_layers=1, num_heads=2, hidden_size=16, time_conditioning=True)
TINY_UNET = UNetConfig(hidden_size=8, num_blocks=1, time_conditioning=True)
TINY_UVIT = UViTConfig(
    hidden_size=8, num_blocks=1, transformer_width=16, num_layers=2, num_heads=2, time_conditioning=True
)
TINY_SAMPLING = replace(
    SAMPLING, length=8, vocab_size=11, steps=10, steady_steps=3, num_layers=1, num_heads=2, hidden_size=16, threads=1
)
TINY = replace(
    FULL,
    speeds={
        "text8": Shape(TINY_TRANSFORMER, 11, (8,), 2),
        "gpt2-small": Shape(TINY_TRANSFORMER, 500, (16,), 2),
        "cifar10": Shape(TINY_UNET, 256, (4, 4, 3), 2),
        "imagenet64": Shape(TINY_UVIT, 256, (4, 4, 3), 2),
    },
    doublings=2,
    groups=2,
    steps=2,
    warm_up=1,
    chunk_bytes=(2**10, 2**26),
    samplers=tuple(replace(TINY_SAMPLING, sampler=kind, batch=batch) for kind, batch in SAMPLED),
    training=Training(
        package="json",
        shape=Shape(TINY_TRANSFORMER.model_copy(update={"hidden_size": 32, "dropout": 0.05}), 27, (32,), 8),
        held_out=2_000,
        num_mc_samples=2,
        evaluation_batch=32,
        seconds=2,
        peak_learning_rate=1e-2,
    ),
)
"""For a rehearsal in two minutes on a CPU."""


def get_sizes(report: Report) -> Sizes:
    """Return the settings of a full run or of a rehearsal."""
    return TINY if report.tiny else FULL


def run_speed(report: Report) -> None:
    """Measure every network at its first batch, then the sizes of the head's chunks, then doubled batches in turn."""
    sizes, device = get_sizes(report), report.device
    dtype = getattr(torch, sizes.hardware.precision)
    report.document |= {
        "precision": sizes.hardware.precision,
        "matmul_peak": measure_peak_flops(device, dtype),
        "data_sheet_peak": find_data_sheet_peak(device),
    }
    for name, shape in sizes.speeds.items():
        measure_batch(report, name, shape.batch, False, EAGER_SECONDS)
    problem = find_compiler_problem(device) if sizes.hardware.compile else ""
    for name, shape in sizes.speeds.items() if problem else ():
        skipped = f"{NO_COMPILER}: {problem}"
        report.add({"network": name, "batch": shape.batch, "compiled": True, "skipped": skipped})
    compile, rows = sizes.hardware.compile and not problem, {}
    for name, shape in sizes.speeds.items():
        chunk_bytes = sizes.chunk_bytes if name == CHUNKED else ()
        seconds = COMPILED_SECONDS if compile else 0
        rows[name] = measure_batch(report, name, shape.batch, compile, seconds, chunk_bytes)
    grow_batches(
        rows, sizes.doublings, lambda name, batch, seconds: measure_batch(report, name, batch, compile, seconds)
    )


def find_data_sheet_peak(device: torch.device) -> float | None:
    """Return the data sheet's FLOP/s of bfloat16 products on the device, or None if it is not known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in DATA_SHEET_PEAKS.items() if part in name), None)


class Measurement:
    """A training run on random tokens whose steps are timed."""

    def __init__(self, report: Report, shape: Shape, batch: int, compile: bool) -> None:
        self.report, self.sizes, self.batch, self.length = report, get_sizes(report), batch, shape.length
        reset_peak_memory(report.device)
        network = shape.build_network(seed=0).to(report.device)
        self.flops, self.parameters = training_flops(network, self.length), count_parameters(network)
        objective = build_objective(MD4Config(), shape.vocab_size)
        # The steps of the batch, and as many for each chunk size.
        steps = (1 + len(self.sizes.chunk_bytes)) * (self.sizes.warm_up + self.sizes.groups * self.sizes.steps)
        train = TrainConfig(steps=steps, batch_size=batch, warmup_steps=0)
        hardware = self.sizes.hardware.model_copy(update={"compile": compile})
        self.step = Trainer.build(network, objective, train, hardware, CounterRNG(0, "bench"))
        self._tokens = shape.random_tokens(batch, seed=0)

    def measure_speed(self) -> Result:
        """Time the steps after some that warm up, the first of which compiles."""
        first, *_ = time_steps(self.step, self._batches, self.sizes.warm_up)
        seconds = time_steps(self.step, self._batches, self.sizes.groups, self.sizes.steps)
        self.step.state.history.require_finite(self.step.state.step)
        document = self.report.document
        speed = summarize_speed(seconds, self.batch, self.length, self.flops, document["matmul_peak"])
        data_sheet = document["data_sheet_peak"]
        return {
            **speed,
            "mfu_data_sheet": None if data_sheet is None else speed["flops_per_second"] / data_sheet,
            "first_step_seconds": first,
            "peak_mem_mib": get_peak_memory_mib(self.report.device),
            "parameters": self.parameters,
        }

    def measure_chunks(self, size: int) -> Result:
        """Time the steps with chunks of logits of at most `size` bytes in float32."""
        before = md4.CHUNK_BYTES, md4.CHUNK_MEMORY_FRACTION
        reset_peak_memory(self.report.device)
        md4.CHUNK_BYTES, md4.CHUNK_MEMORY_FRACTION = size, 0
        try:
            return self.measure_speed()
        finally:
            md4.CHUNK_BYTES, md4.CHUNK_MEMORY_FRACTION = before

    def _batches(self, _: int, rows: range) -> Batch:
        return Batch(self._tokens[rows.start : rows.stop])


def measure_batch(
    report: Report, name: str, batch: int, compile: bool, seconds: float, chunk_bytes: Sequence[int] = ()
) -> Result | None:
    """Add the row of a network at a batch, and a row for each size of the head's chunks; return the first."""
    made: list[Measurement] = []

    def measure() -> Result:
        made[:] = [Measurement(report, get_sizes(report).speeds[name], batch, compile)]
        return made[0].measure_speed()

    def measure_chunks(size: int) -> Result:
        return made[0].measure_chunks(size)

    labels = {"network": name, "batch": batch, "compiled": compile}
    row = report.attempt(labels, measure, seconds)
    for size in chunk_bytes if row else ():
        report.attempt({**labels, "chunk_bytes": size}, partial(measure_chunks, size), EAGER_SECONDS)
    made.clear()
    free_memory()
    return row


def grow_batches(
    rows: dict[str, Result | None], doublings: int, measure: Callable[[str, int, float], Result | None]
) -> None:
    """Double the batch of every network in turn, at most `doublings` times, until memory or speed ends.

    Args:
        rows: for each network the row of its first batch, None where that failed.
        doublings: most of them.
        measure: called with network, batch and the least seconds that it takes; returns a row or None.
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
    for benchmark in get_sizes(report).samplers:
        here = replace(benchmark, device=report.device.type)
        reset_peak_memory(report.device)
        report.attempt(asdict(here), here.measure)
        free_memory()


def run_training(report: Report) -> None:
    """Train and evaluate, with one row before and one after.

    Raises:
        RuntimeError: it was not completed; the row says why.
    """
    settings = get_sizes(report).training
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "text"
        splits = write_docstrings(folder, settings.package, settings.shape.shape[0], settings.held_out)
        characters = {split: len(dataset.tokens) for split, dataset in splits.items()}
        data = f"docstrings of the package {settings.package} in text8's alphabet; this is not text8"
        report.document |= {"data": data, "characters": characters}
        train_and_evaluate = partial(_train_and_evaluate, report, splits["train"], splits["test"])
        if report.attempt({"what": "after training"}, train_and_evaluate) is None:
            raise RuntimeError("no training run was completed; the row says why")


def _train_and_evaluate(report: Report, train: EncodedDataset, test: EncodedDataset) -> Result:
    """Plan the steps from the measured speed, take them and bound the likelihood with the EMA weights."""
    settings = get_sizes(report).training
    network = _build_network(report)
    objective = build_objective(MD4Config(), settings.shape.vocab_size)
    config = _train_config(settings, FIRST_STEPS + TIMED_STEPS)
    trainer = Trainer.build(network, objective, config, get_sizes(report).hardware, CounterRNG(SEED, "train"))

    def batches(step: int, rows: range) -> Batch:
        return Batch(torch.from_numpy(training_batch(train, SEED, step, settings.shape.batch, rows)))

    time_steps(trainer, batches, FIRST_STEPS)
    (seconds_per_step,) = time_steps(trainer, batches, 1, TIMED_STEPS)
    network = _build_network(report)  # Not compiled: evaluation has other shapes and is short.
    trainer.state.network.load_state_dict(network.state_dict())
    untrained = _bound(report, network, test, num_mc_samples=2)
    evaluation_seconds = untrained["evaluation_seconds"] * settings.num_mc_samples / 2
    end = time.time() + min(report.seconds_left() - evaluation_seconds - SPARE_SECONDS, settings.seconds)
    steps = max(2, int(MARGIN * (end - time.time()) / seconds_per_step))
    report.document["planned_steps"] = steps
    report.add({"what": "before training", "seconds_per_step": seconds_per_step, **untrained})
    # A new run with the same, already compiled network and its weights.
    config = _train_config(settings, steps)
    state = TrainingState(trainer.state.network, trainer.state.objective, config)
    trainer = replace(trainer, state=state, settings=config)
    started = time.time()
    _train(trainer, batches, steps, end)
    seconds, done, history = time.time() - started, state.step, state.history
    history.require_finite(done)
    network.load_state_dict(state.ema_state_dicts()[0])
    tokens, every = done * settings.shape.batch * train.seq_len, max(1, done // CURVE)
    return {
        **_bound(report, network, test, num_mc_samples=settings.num_mc_samples),
        "steps": done,
        "stopped_by_the_clock": done < steps,
        "batch": settings.shape.batch,
        "training_seconds": seconds,
        "tokens_per_second": tokens / seconds,
        "epochs": tokens / len(train.tokens),
        "curve": [[last, history.mean_loss(last - every, last)] for last in range(every, done + 1, every)],
        "parameters": count_parameters(network),
    }


def _build_network(report: Report) -> Network:
    return get_sizes(report).training.shape.build_network(SEED).to(report.device)


def _train_config(settings: Training, steps: int) -> TrainConfig:
    return TrainConfig(
        steps=steps,
        batch_size=settings.shape.batch,
        learning_rate=settings.peak_learning_rate,
        warmup_steps=max(1, int(WARMUP * steps)),
        ema_decay=max(0.0, min(0.9999, 1 - 1 / (AVERAGED * steps))),
    )


def _train(trainer: Trainer, batches: Batches, steps: int, end: float) -> None:
    """Take the steps, fewer if the time ends before."""
    line = time.time()
    while trainer.state.step < steps and time.time() < end:
        trainer.train_step(batches)
        if time.time() - line > SECONDS_BETWEEN_LINES:
            line, done = time.time(), trainer.state.step
            loss = trainer.state.history.mean_loss(max(0, done - 50), done)
            logger.info(f"training: step {done} of {steps}, loss {loss:.4f} bits")


def _bound(report: Report, network: Network, dataset: EncodedDataset, num_mc_samples: int) -> Result:
    """Return the bound in bits per character and the seconds that it took."""
    settings, start = get_sizes(report).training, time.time()
    objective = build_objective(MD4Config(), settings.shape.vocab_size)
    config = EstimatorConfig(num_mc_samples=num_mc_samples, batch_size=settings.evaluation_batch)
    likelihood = likelihood_bound(objective, network, dataset, config, CounterRNG(SEED, "evaluate"))
    bits = likelihood.bits_per_token()
    return {
        "bits_per_character": bits.value,
        "stderr": bits.stderr,
        "stderr_mc": bits.stderr_mc,
        "uniform_bits_per_character": math.log2(27),
        "examples": likelihood.examples,
        "held_out_characters": likelihood.tokens,
        "num_mc_samples": likelihood.num_mc_samples,
        "evaluation_seconds": time.time() - start,
    }


if __name__ == "__main__":
    run_part({"speed": run_speed, "samplers": run_samplers, "training": run_training})
