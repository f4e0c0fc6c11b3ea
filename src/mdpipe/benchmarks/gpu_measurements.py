"""Measurements of a GPU run: training steps at growing batches, samplers, and a training run with its bound."""

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray

from mdpipe.benchmarks.gpu_report import THREADS, Job, is_measured, require_compiler
from mdpipe.benchmarks.runner import Result
from mdpipe.benchmarks.sampling import SamplingBenchmark
from mdpipe.benchmarks.training import SHAPES, Shape, TrainingBenchmark, start_training, time_steps
from mdpipe.data.dataset import EncodedDataset
from mdpipe.data.sources.bundled import read_docstrings
from mdpipe.data.tokenizers import Text8
from mdpipe.data.training_batches import training_batch
from mdpipe.diffusion.objectives import md4
from mdpipe.diffusion.objectives.base import build_objective
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.evaluation.likelihood import likelihood_bound
from mdpipe.networks.base import Network, count_parameters
from mdpipe.params import EstimatorConfig, TrainConfig
from mdpipe.params.diffusion import MD4Config
from mdpipe.params.training import HardwareConfig
from mdpipe.training.loop import Batch
from mdpipe.training.performance import find_compiler_problem
from mdpipe.training.state import TrainingState

CHUNKED = "gpt2-small"
"""The network whose head is measured with chunks of several sizes."""
GAIN = 1.03
"""A doubled batch that is not faster by this factor ends the doubling."""
EAGER_SECONDS, COMPILED_SECONDS = 8, 30
"""Estimates of the duration of a measurement before one was made."""

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

DATA_SHEET_PEAKS = {"H200": 989.4e12, "H100 80GB HBM3": 989.4e12, "A100": 312e12}
"""FLOP/s of dense bfloat16 products by the data sheets of NVIDIA's SXM modules; keys are parts of device names."""

SPEEDS = {"text8": 128, "gpt2-small": 32, "cifar10": 128, "imagenet64": 16}
"""Networks of `SHAPES`, and the batches where the doubling begins."""
SAMPLED = (
    ("ancestral_stepwise", 1),
    ("ancestral", 1),
    ("ancestral_stepwise", 16),
    ("ancestral", 16),
    ("two_stage", 16),
)
"""Samplers and batches."""
STEP = TrainingBenchmark(
    "text8", 0, "md4", "adamw", "bfloat16", False, False, steps=15, group=5, warm_up=3, threads=THREADS, device="cuda"
)
SAMPLING = SamplingBenchmark(
    "ancestral", num_layers=12, num_heads=12, hidden_size=768, repeats=2, threads=THREADS, dtype="bfloat16"
)


@dataclass(frozen=True)
class Sizes:
    """Settings of the measurements; the defaults are for one GPU of about 140 GiB, within nine minutes."""

    first_batches: dict[str, int] = field(default_factory=lambda: SPEEDS)
    step: TrainingBenchmark = STEP
    """The training step that is measured, of every network at every batch."""
    doublings: int = 4
    chunk_bytes: tuple[int, ...] = (2**24, 2**26, 2**28, 2**30, 2**34)
    """Sizes of the chunks of the head of `CHUNKED` that are measured."""
    sampling: SamplingBenchmark = SAMPLING
    """The sampling that is measured, with every sampler and batch."""
    package: str = "python"
    """Whose docstrings are trained on; "python" is the standard library."""
    text: Shape = SHAPES["text8"]
    text_batch: int = 64
    held_out: int = 130_000
    """Approximate number of characters that the bound is measured on."""
    num_mc_samples: int = 8
    """Monte Carlo samples of the bound per example."""
    evaluation_batch: int = 256
    seconds: float = 600
    """Most that the training steps may take."""
    learning_rate: float = 5e-4


FULL = Sizes()
TINY = Sizes(
    first_batches=dict.fromkeys(SPEEDS, 2),
    step=replace(FULL.step, steps=4, group=2, warm_up=1, threads=1),
    doublings=2,
    chunk_bytes=(2**10, 2**26),
    sampling=replace(
        FULL.sampling,
        length=8,
        vocab_size=11,
        steps=10,
        steady_steps=3,
        num_layers=1,
        num_heads=2,
        hidden_size=16,
        threads=1,
    ),
    package="json",
    text=FULL.text.shrink(),
    text_batch=8,
    held_out=2_000,
    num_mc_samples=2,
    evaluation_batch=32,
    seconds=2,
    learning_rate=1e-2,
)
"""For a rehearsal in two minutes on a CPU."""


def get_sizes(job: Job) -> Sizes:
    """Return the settings of a full run or of a rehearsal."""
    return TINY if job.tiny else FULL


def run_speed(job: Job) -> Iterator[Result]:
    """Measure every network at its first batch, eager and compiled, then doubled batches in turn.

    The sizes of the head's chunks are measured where the doubling begins.
    """
    sizes = get_sizes(job)
    compile, best = not find_compiler_problem(job.device), {}
    with patch.dict(SHAPES, {name: SHAPES[name].shrink() for name in SPEEDS} if job.tiny else {}):
        for is_compiled, seconds in ((False, EAGER_SECONDS), (True, COMPILED_SECONDS)):
            for name, batch in sizes.first_batches.items():
                first = measure_speed(job, name, batch, is_compiled, seconds)
                yield first
                if is_compiled == compile and is_measured(first):
                    best[name] = first
                    for size in sizes.chunk_bytes if name == CHUNKED else ():
                        yield measure_speed(job, name, batch, is_compiled, EAGER_SECONDS, size)
        yield from grow_batches(best, sizes.doublings, partial(measure_speed, job, compile=compile))


def find_data_sheet_peak(device: torch.device) -> float | None:
    """Return the data sheet's FLOP/s of bfloat16 products on the device, or None if it is not known."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return next((peak for part, peak in DATA_SHEET_PEAKS.items() if part in name), None)


def measure_speed(
    job: Job, name: str, batch: int, compile: bool, seconds: float, chunk_bytes: int | None = None
) -> Result:
    """Return the row of a network at a batch, with chunks of the head's logits of at most so many bytes in float32."""
    device, chunk = job.device, {}
    step = replace(get_sizes(job).step, shape=name, batch=batch, compile=compile, device=device.type)
    labels = asdict(step)
    if chunk_bytes is None:
        torch.compiler.reset()  # Chunks are measured with the code that was compiled before.
    else:
        labels["chunk_bytes"] = chunk_bytes
        chunk = {"CHUNK_BYTES": chunk_bytes, "CHUNK_MEMORY_FRACTION": 0}

    def measure() -> Result:
        if compile:
            require_compiler(device)
        with patch.dict(vars(md4), chunk):
            speed = step.measure_here()
        peak = find_data_sheet_peak(device)
        return {**speed, "mfu_data_sheet": None if peak is None else speed["flops_per_second"] / peak}

    return job.attempt(labels, measure, seconds)


def grow_batches(best: dict[str, Result], doublings: int, measure: Callable[..., Result]) -> Iterator[Result]:
    """Double the batch of every network in turn, at most `doublings` times, until memory or speed ends.

    Args:
        best: for each network the row of its first batch.
        doublings: most of them.
        measure: called with `name`, `batch` and the least `seconds` that it takes; returns a row.
    """
    for _ in range(doublings):
        for name, before in list(best.items()):
            after = measure(name=name, batch=2 * before["batch"], seconds=before["wall_seconds"])
            yield after
            if not is_measured(after) or after["tokens_per_second"] < GAIN * before["tokens_per_second"]:
                del best[name]
            else:
                best[name] = after


def run_samplers(job: Job) -> Iterator[Result]:
    """Measure every sampler of the sizes, in the precision and with the steps that it says."""
    torch.set_deterministic_debug_mode("default")  # As `mdpipe bench sample` measures.
    for kind, batch in SAMPLED:
        here = replace(get_sizes(job).sampling, sampler=kind, batch=batch, device=job.device.type)
        yield job.attempt(asdict(here), here.measure)


def run_training(job: Job) -> Iterator[Result]:
    """Train for the time that is left, with one row before and one after.

    Raises:
        RuntimeError: it was not completed; the row says why.
    """
    training = Training(job, get_sizes(job))
    yield {"head": training.describe()}
    for what, measure in (("before training", training.plan), ("after training", training.run)):
        row = job.attempt({"what": what}, measure)
        yield row
        if not is_measured(row):
            raise RuntimeError("no training run was completed; the row says why")
        yield {"head": {"planned_steps": training.steps}}


class Training:
    """A training run on docstrings that ends in time for its evaluation."""

    def __init__(self, job: Job, sizes: Sizes) -> None:
        self.job, self.sizes = job, sizes
        network = sizes.text.network.model_copy(update={"dropout": 0.05})  # The text is short.
        self.shape = replace(sizes.text, network=network, batch=sizes.text_batch)
        self.train, self.test = read_splits(sizes.package, self.shape.length, sizes.held_out)

    def describe(self) -> Result:
        """Return what is trained on."""
        return {
            "data": f"docstrings of the package {self.sizes.package} in text8's alphabet; this is not text8",
            "characters": {split.split: len(split.tokens) for split in (self.train, self.test)},
        }

    def plan(self) -> Result:
        """Compile, plan the steps from the measured speed, and bound the likelihood with the initial weights."""
        sizes, shape = self.sizes, self.shape
        config = self._config(FIRST_STEPS + TIMED_STEPS)
        hardware = HardwareConfig(precision="bfloat16", threads=THREADS, compile=True)
        self.trainer, _ = start_training(self._build_network(), shape, MD4Config(), config, hardware)
        time_steps(self.trainer, self._batches, FIRST_STEPS)
        (seconds_per_step,) = time_steps(self.trainer, self._batches, 1, TIMED_STEPS)
        self.network = self._build_network()  # Not compiled: evaluation has other shapes and is short.
        self.trainer.state.network.load_state_dict(self.network.state_dict())
        untrained = self._bound(num_mc_samples=2)
        evaluation_seconds = untrained["evaluation_seconds"] * sizes.num_mc_samples / 2
        seconds = min(self.job.end - time.time() - evaluation_seconds - SPARE_SECONDS, sizes.seconds)
        self.end, self.steps = time.time() + seconds, max(2, int(MARGIN * seconds / seconds_per_step))
        return {"seconds_per_step": seconds_per_step, **untrained}

    def run(self) -> Result:
        """Take the steps, fewer if the time ends before, and bound the likelihood with the EMA weights."""
        config = self._config(self.steps)
        # A new run with the same, already compiled network and its weights.
        state = TrainingState(self.trainer.state.network, self.trainer.state.objective, config)
        trainer, start = self.trainer, time.time()
        trainer.state, trainer.settings = state, config
        while state.step < self.steps and time.time() < self.end:
            trainer.train_step(self._batches)
        done, history = state.step, state.history
        history.require_finite(done)  # Also waits for the last step.
        seconds = time.time() - start
        self.network.load_state_dict(state.ema_state_dicts()[0])
        tokens, every = done * self.shape.batch * self.shape.length, max(1, done // CURVE)
        return {
            **self._bound(self.sizes.num_mc_samples),
            "steps": done,
            "stopped_by_the_clock": done < self.steps,
            "batch": self.shape.batch,
            "training_seconds": seconds,
            "tokens_per_second": tokens / seconds,
            "epochs": tokens / len(self.train.tokens),
            "curve": [[last, history.mean_loss(last - every, last)] for last in range(every, done + 1, every)],
            "parameters": count_parameters(self.network),
        }

    def _build_network(self) -> Network:
        return self.shape.build_network(seed=0).to(self.job.device)

    def _batches(self, step: int, rows: range) -> Batch:
        return Batch(torch.from_numpy(training_batch(self.train, 0, step, self.shape.batch, rows)))

    def _config(self, steps: int) -> TrainConfig:
        return TrainConfig(
            steps=steps,
            batch_size=self.shape.batch,
            learning_rate=self.sizes.learning_rate,
            warmup_steps=max(1, int(WARMUP * steps)),
            ema_decay=max(0.0, min(0.9999, 1 - 1 / (AVERAGED * steps))),
        )

    def _bound(self, num_mc_samples: int) -> Result:
        """Return the bound of the test split in bits per character and the seconds that it took."""
        start, objective = time.time(), build_objective(MD4Config(), self.shape.vocab_size)
        config = EstimatorConfig(num_mc_samples=num_mc_samples, batch_size=self.sizes.evaluation_batch)
        likelihood = likelihood_bound(objective, self.network, self.test, config, CounterRNG(0, "evaluate"))
        bits = likelihood.bits_per_token()
        return {
            "bits_per_character": bits.value,
            "stderr": bits.stderr,
            "stderr_mc": bits.stderr_mc,
            "uniform_bits_per_character": math.log2(self.shape.vocab_size),
            "examples": likelihood.examples,
            "held_out_characters": likelihood.tokens,
            "num_mc_samples": likelihood.num_mc_samples,
            "evaluation_seconds": time.time() - start,
        }


def read_splits(package: str, seq_len: int, held_out: int) -> list[EncodedDataset]:
    """Return the docstrings of a package in two splits, "train" and "test", as windows of `seq_len` characters.

    Whole documents are held out, in the order of a hash of their names, until they have `held_out` characters.
    Docstrings repeat themselves across modules, so some held-out sentences are in the training text, too.
    """
    tokenizer = Text8()
    tokens: dict[str, list[NDArray[np.uint8]]] = {"train": [], "test": []}
    for document in sorted(read_docstrings([package]), key=lambda one: hashlib.sha256(one.name.encode()).digest()):
        words = np.trim_zeros(tokenizer.encode(document.text))  # Without spaces at its ends.
        split = "test" if sum(map(len, tokens["test"])) < held_out else "train"
        tokens[split].append(np.append(words, tokenizer.eos_id).astype(np.uint8))
    return [
        EncodedDataset(
            directory=Path(),
            split=split,
            modality="text",
            vocab_size=tokenizer.vocab_size,
            shape=(seq_len,),
            seq_len=seq_len,
            tokenizer=tokenizer.kind,
            splits={split: {}},
            tokens=np.concatenate(documents),
            classes=0,
            labels=None,
        )
        for split, documents in tokens.items()
    ]
