"""Measurements of a GPU run: training steps at growing batches, samplers, and a training run with its bound."""

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray

from mdpipe.benchmarks import sampling, training
from mdpipe.benchmarks.runner import Result
from mdpipe.benchmarks.settings import PAPER_TRANSFORMER, SHAPES, SamplingSettings, Shape, TrainingSettings
from mdpipe.data.dataset import DatasetHeader, EncodedDataset
from mdpipe.data.sources.bundled import read_docstrings
from mdpipe.data.tokenizers import Text8
from mdpipe.data.training_batches import training_batch
from mdpipe.diffusion.objectives import md4
from mdpipe.diffusion.objectives.base import Objective
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.evaluation.likelihood import likelihood_bound
from mdpipe.networks.base import count_parameters
from mdpipe.params import EstimatorConfig, TrainConfig
from mdpipe.params.diffusion import MD4Config
from mdpipe.params.training import HardwareConfig
from mdpipe.training.loop import Batch
from mdpipe.training.state import TrainingState

if TYPE_CHECKING:
    from mdpipe.benchmarks.gpu import Job

THREADS = 8
"""CPU threads of a part; a rehearsal has one."""

CHUNKED = "gpt2-small"
"""The network whose head is measured with chunks of several sizes."""
GAIN = 1.03
"""A doubled batch that is not faster by this factor ends the doubling."""
EAGER_SECONDS, COMPILED_SECONDS = 8, 30
"""Estimates of the duration of a measurement before one was made."""

FIRST_STEPS, TIMED_STEPS = 3, 10
"""Steps to compile, and then to measure the speed; the run then starts again from its initial weights."""
MARGIN = 0.9
"""The fraction of the remaining time that the steps are planned for."""
SPARE_SECONDS = 5.0
"""Reserve for the time between training and evaluation, and for an evaluation that takes longer than planned."""
AVERAGED = 0.1
"""The horizon of the averaged weights, as a fraction of the steps."""
CURVE = 40
"""Approximate number of points of the training curve."""

DATA_SHEET_PEAKS = {"H200": 989.4e12, "H100 80GB HBM3": 989.4e12, "A100": 312e12}
"""FLOP/s of dense bfloat16 products by the data sheets of NVIDIA's SXM modules; keys are parts of device names."""

FIRST_BATCHES = {"text8": 128, "gpt2-small": 32, "cifar10": 128, "imagenet64": 16}
NETWORKS = {name: replace(SHAPES[name], batch=batch) for name, batch in FIRST_BATCHES.items()}
"""Networks whose training is measured, with the batches where the doubling begins."""
STEP = TrainingSettings(precision="bfloat16", steps=15, group=5, threads=THREADS)
"""The training step that is measured, of every network at every batch."""
CHUNK_BYTES = (2**24, 2**26, 2**28, 2**30, 2**34)
"""Sizes of the chunks of the head of `CHUNKED` that are measured."""
SAMPLING = SamplingSettings(num_layers=12, num_heads=12, hidden_size=768, repeats=2, threads=THREADS, dtype="bfloat16")
SAMPLED = (
    ("ancestral_stepwise", 1),
    ("ancestral", 1),
    ("ancestral_stepwise", 16),
    ("ancestral", 16),
    ("two_stage", 16),
)
"""Samplers and batches."""
TEXT = Shape(PAPER_TRANSFORMER.model_copy(update={"dropout": 0.05}), 27, (256,), batch=64)  # The text is short.
ESTIMATOR = EstimatorConfig(num_mc_samples=8, batch_size=256)


def run_speed(
    job: "Job",
    networks: Mapping[str, Shape] = NETWORKS,
    step: TrainingSettings = STEP,
    doublings: int = 4,
    chunk_bytes: Sequence[int] = CHUNK_BYTES,
) -> Iterator[Result]:
    """Measure every network at its first batch, eager and compiled, then doubled batches in turn.

    The sizes of the head's chunks are measured where the doubling begins.
    """
    best, doubles_compiled = {}, not job.compiler_problem
    step = replace(step, device=job.device.type)
    with patch.dict(SHAPES, networks):
        for is_compiled, seconds in ((False, EAGER_SECONDS), (True, COMPILED_SECONDS)):
            for name in networks:
                first = replace(step, shape=name, batch=0, compile=is_compiled)
                row = measure_speed(job, first, seconds)
                yield row
                if is_compiled == doubles_compiled and "tokens_per_second" in row:
                    best[name] = row
                    for size in chunk_bytes if name == CHUNKED else ():
                        yield measure_speed(job, first, EAGER_SECONDS, size)

        def measure(name: str, batch: int, seconds: float) -> Result:
            return measure_speed(job, replace(step, shape=name, batch=batch, compile=doubles_compiled), seconds)

        yield from grow_batches(best, doublings, measure)


def find_data_sheet_peak(device: torch.device) -> float | None:
    """Return the data sheet's FLOP/s of bfloat16 products on the device, or None if it is not known."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return next((peak for part, peak in DATA_SHEET_PEAKS.items() if part in name), None)


def measure_speed(job: "Job", step: TrainingSettings, seconds: float, chunk_bytes: int | None = None) -> Result:
    """Return the row of a training step; `chunk_bytes` limits the chunks of the head's logits in float32."""
    labels, chunk = asdict(step), {}
    if chunk_bytes is None:
        torch.compiler.reset()  # Chunks are measured with the code that was compiled before.
    else:
        labels["chunk_bytes"] = chunk_bytes
        chunk = {"CHUNK_BYTES": chunk_bytes, "CHUNK_MEMORY_FRACTION": 0}

    def measure() -> Result:
        with patch.dict(vars(md4), chunk):
            speed = training.measure_here(step)
        peak = find_data_sheet_peak(job.device)
        return {**speed, "mfu_data_sheet": None if peak is None else speed["flops_per_second"] / peak}

    return job.attempt(labels, measure, seconds=seconds, compiles=step.compile)


def grow_batches(
    best: dict[str, Result], doublings: int, measure: Callable[[str, int, float], Result]
) -> Iterator[Result]:
    """Double the batch of every network in turn, at most `doublings` times, until memory or speed ends.

    Args:
        best: The row of the first batch of each network.
        doublings: The largest number of doublings.
        measure: Returns the row of a network at a batch, given the least seconds that it takes.
    """
    for _ in range(doublings):
        for name, before in list(best.items()):
            best[name] = after = measure(name, 2 * before["batch"], before["wall_seconds"])
            yield after
            if after.get("tokens_per_second", 0) < GAIN * before["tokens_per_second"]:
                del best[name]


def run_samplers(job: "Job", settings: SamplingSettings = SAMPLING) -> Iterator[Result]:
    """Measure every sampler at every batch, in the precision and with the steps of the settings."""
    torch.set_deterministic_debug_mode("default")  # As `mdpipe bench sample` measures.
    for kind, batch in SAMPLED:
        one = replace(settings, sampler=kind, batch=batch, device=job.device.type)
        yield job.attempt(asdict(one), partial(sampling.measure, one))


def run_training(job: "Job", **sizes: Any) -> Iterator[Result]:
    """Train for the time that is left, with one row before and one after.

    Raises:
        RuntimeError: It was not completed; the row says why.
    """
    run = DocstringTraining(job, **sizes)
    for what, measure in (("before training", run.plan), ("after training", run.train)):
        row = job.attempt({"what": what}, measure)
        yield row
        if "bits_per_character" not in row:
            raise RuntimeError("no training run was completed; the row says why")


@dataclass
class DocstringTraining:
    """A training run on docstrings that ends in time for its evaluation."""

    job: "Job"
    package: str = "python"
    """Package with the docstrings to train on; "python" is the standard library."""
    shape: Shape = TEXT
    held_out: int = 130_000
    """Approximate number of characters that the bound is measured on."""
    estimator: EstimatorConfig = ESTIMATOR
    seconds: float = 600
    """The longest duration of the training steps."""
    learning_rate: float = 5e-4

    def __post_init__(self) -> None:
        self.text, self.test = read_splits(self.package, self.shape.length, self.held_out)
        # For evaluation: not compiled, since that has other shapes and is short.
        self.network = self.shape.build_network(seed=0).to(self.job.device)

    def plan(self) -> Result:
        """Compile, plan the steps from the measured speed, and bound the likelihood with the initial weights."""
        network, config = self.shape.build_network(seed=0).to(self.job.device), self._config(FIRST_STEPS + TIMED_STEPS)
        hardware = HardwareConfig(precision="bfloat16", compile=True)
        self.trainer, _ = training.start_training(network, self.shape, MD4Config(), config, hardware)
        training.time_steps(self.trainer, self._batches, FIRST_STEPS)
        (seconds_per_step,) = training.time_steps(self.trainer, self._batches, 1, TIMED_STEPS)
        network.load_state_dict(self.network.state_dict())
        untrained = self._bound(self.estimator.model_copy(update={"num_mc_samples": 2}))
        evaluation_seconds = untrained["evaluation_seconds"] * self.estimator.num_mc_samples / 2
        seconds = min(self.job.end - time.time() - evaluation_seconds - SPARE_SECONDS, self.seconds)
        self.end, self.steps = time.time() + seconds, max(2, int(MARGIN * seconds / seconds_per_step))
        return {
            "data": f"docstrings of the package {self.package} in text8's alphabet; this is not text8",
            "characters": {split.split: len(split.tokens) for split in (self.text, self.test)},
            "seconds_per_step": seconds_per_step,
            "planned_steps": self.steps,
            **untrained,
        }

    def train(self) -> Result:
        """Take the steps, fewer if the time ends before, and bound the likelihood with the EMA weights."""
        # A new run with the same, already compiled network and its weights.
        trainer, config, start = self.trainer, self._config(self.steps), time.time()
        state = TrainingState(trainer.state.network, trainer.state.objective, config)
        trainer.state, trainer.settings = state, config
        while state.step < self.steps and time.time() < self.end:
            trainer.train_step(self._batches)
        done, history = state.step, state.history
        history.require_finite(done)  # Also waits for the last step.
        seconds = time.time() - start
        self.network.load_state_dict(state.ema_state_dicts()[0])
        tokens, every = done * self.shape.batch * self.shape.length, max(1, done // CURVE)
        return {
            **self._bound(self.estimator),
            "steps": done,
            "stopped_by_the_clock": done < self.steps,
            "batch": self.shape.batch,
            "training_seconds": seconds,
            "tokens_per_second": tokens / seconds,
            "epochs": tokens / len(self.text.tokens),
            "curve": [[last, history.summarize(last - every, last)[0]] for last in range(every, done + 1, every)],
            "parameters": count_parameters(self.network),
        }

    def _batches(self, step: int, rows: range) -> Batch:
        return Batch(torch.from_numpy(training_batch(self.text, 0, step, self.shape.batch, rows)))

    def _config(self, steps: int) -> TrainConfig:
        """Return settings with the default warm-up, a tenth of the steps."""
        decay = max(0.0, min(0.9999, 1 - 1 / (AVERAGED * steps)))
        return TrainConfig(steps=steps, batch_size=self.shape.batch, learning_rate=self.learning_rate, ema_decay=decay)

    def _bound(self, config: EstimatorConfig) -> Result:
        """Return the bound of the held-out text in bits per character and the seconds that it took."""
        start, objective = time.time(), Objective.build(MD4Config(), self.shape.vocab_size)
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
    header = DatasetHeader(
        modality="text",
        tokenizer=tokenizer.kind,
        vocab_size=tokenizer.vocab_size,
        shape=(seq_len,),
        seq_len=seq_len,
        classes=0,
        splits={split: {} for split in tokens},
    )
    return [
        EncodedDataset(directory=Path(), split=split, tokens=np.concatenate(documents), labels=None, **dict(header))
        for split, documents in tokens.items()
    ]
