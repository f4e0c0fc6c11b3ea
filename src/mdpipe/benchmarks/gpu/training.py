"""A training run on characters that takes the remaining time, and the likelihood bound of held-out text.

The text is docstrings of Python's standard library, which every machine has, in the alphabet of text8. It is not text8,
and bounds on it are not comparable with published ones.
"""

import hashlib
import math
import tempfile
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from mdpipe.benchmarks.gpu.report import Report, Row, logger
from mdpipe.benchmarks.gpu.sizes import Training
from mdpipe.benchmarks.training import time_steps
from mdpipe.data.artifacts.arrays import ArrayFile
from mdpipe.data.dataset import EncodedDataset, token_dtype, training_batch
from mdpipe.data.sources.bundled import read_docstrings
from mdpipe.data.tokenizers import Text8
from mdpipe.diffusion.objectives.base import build_objective
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.evaluation.likelihood import Likelihood, likelihood_bound
from mdpipe.networks.base import Network, count_parameters
from mdpipe.params import EstimatorConfig, TrainConfig
from mdpipe.params.diffusion import MD4Config
from mdpipe.training.loop import Batch, Batches, Trainer
from mdpipe.training.state import TrainingState

SPLITS = ("train", "test")
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


def run(report: Report) -> None:
    """Train and evaluate, with one row before and one after.

    Raises:
        RuntimeError: it was not completed; the row says why.
    """
    settings = report.sizes.training
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "text"
        splits = write_text(folder, settings.package, settings.shape.shape[0], settings.held_out)
        characters = {split: len(dataset.tokens) for split, dataset in splits.items()}
        data = f"docstrings of the package {settings.package} in text8's alphabet; this is not text8"
        report.document |= {"data": data, "characters": characters}
        train_and_evaluate = partial(_train_and_evaluate, report, splits["train"], splits["test"])
        if report.attempt({"what": "after training"}, train_and_evaluate) is None:
            raise RuntimeError("no training run was completed; the row says why")


def _train_and_evaluate(report: Report, train: EncodedDataset, test: EncodedDataset) -> Row:
    """Plan the steps from the measured speed, take them and bound the likelihood with the averaged weights."""
    settings = report.sizes.training
    step, batches = _prepare(report, train)
    time_steps(step, batches, FIRST_STEPS)
    (seconds_per_step,) = time_steps(step, batches, 1, TIMED_STEPS)
    network = _build_network(report)
    step.state.network.load_state_dict(network.state_dict())
    untrained = _timed_bound(report, network, test, draws=2)
    evaluation_seconds = untrained.seconds * settings.draws / 2
    end = time.time() + min(report.seconds_left() - evaluation_seconds - SPARE_SECONDS, settings.seconds)
    steps = max(2, int(MARGIN * (end - time.time()) / seconds_per_step))
    report.document["planned_steps"] = steps
    report.add({"what": "before training", "seconds_per_step": seconds_per_step, **untrained.to_row()})
    step = _restart(step, settings, steps)
    started = time.time()
    _train(step, batches, steps, end)
    seconds = time.time() - started
    step.state.history.require_finite(step.state.step)
    network.load_state_dict(step.state.ema_state_dicts()[0])
    return {
        **_timed_bound(report, network, test, draws=settings.draws).to_row(),
        **_describe_training(step, steps, seconds, train),
        "parameters": count_parameters(network),
    }


@dataclass(frozen=True)
class TimedBound:
    """A bound and the seconds that it took."""

    likelihood: Likelihood
    seconds: float

    def to_row(self) -> Row:
        """Return the bound in bits per character."""
        bits = self.likelihood.bits_per_token()
        return {
            "bits_per_character": bits.value,
            "stderr": bits.stderr,
            "stderr_draws": bits.stderr_draws,
            "uniform_bits_per_character": math.log2(27),
            "examples": self.likelihood.examples,
            "held_out_characters": self.likelihood.tokens,
            "draws": self.likelihood.draws,
            "evaluation_seconds": self.seconds,
        }


def _prepare(report: Report, dataset: EncodedDataset) -> tuple[Trainer, Batches]:
    settings = report.sizes.training
    network = _build_network(report)
    objective = build_objective(MD4Config(), settings.shape.vocab_size)
    train = _build_settings(settings, FIRST_STEPS + TIMED_STEPS)
    step = Trainer.build(network, objective, train, report.sizes.hardware, CounterRNG(SEED, "train"))

    def batches(step: int, rows: range) -> Batch:
        return Batch(torch.from_numpy(training_batch(dataset, SEED, step, settings.shape.batch, rows)))

    return step, batches


def _build_network(report: Report) -> Network:
    """Return the network with its initial weights, not compiled: evaluation has other shapes and is short."""
    return report.sizes.training.shape.build_network(SEED).to(report.device)


def _build_settings(settings: Training, steps: int) -> TrainConfig:
    return TrainConfig(
        steps=steps,
        batch_size=settings.shape.batch,
        learning_rate=settings.peak_learning_rate,
        warmup_steps=max(1, int(WARMUP * steps)),
        ema_decay=max(0.0, min(0.9999, 1 - 1 / (AVERAGED * steps))),
    )


def _restart(step: Trainer, settings: Training, steps: int) -> Trainer:
    """Return the step of a new run of `steps` steps with the same, already compiled network and its weights."""
    train = _build_settings(settings, steps)
    return replace(step, state=TrainingState(step.state.network, step.state.objective, train), settings=train)


def _train(step: Trainer, batches: Batches, steps: int, end: float) -> None:
    """Take the steps, fewer if the time ends before."""
    line = time.time()
    while step.state.step < steps and time.time() < end:
        step.train_step(batches)
        if time.time() - line > SECONDS_BETWEEN_LINES:
            line = time.time()
            done = step.state.step
            loss = step.state.history.mean_loss(max(0, done - 50), done)
            logger.info(f"training: step {done} of {steps}, loss {loss:.4f} bits")


def _timed_bound(report: Report, network: Network, dataset: EncodedDataset, draws: int) -> TimedBound:
    settings, start = report.sizes.training, time.time()
    objective = build_objective(MD4Config(), settings.shape.vocab_size)
    how = EstimatorConfig(num_mc_samples=draws, batch_size=settings.evaluation_batch)
    likelihood = likelihood_bound(objective, network, dataset, how, CounterRNG(SEED, "evaluate"))
    return TimedBound(likelihood, time.time() - start)


def _describe_training(step: Trainer, planned: int, seconds: float, dataset: EncodedDataset) -> Row:
    done, history = step.state.step, step.state.history
    tokens = done * step.settings.batch_size * dataset.seq_len
    every = max(1, done // CURVE)
    return {
        "steps": done,
        "stopped_by_the_clock": done < planned,
        "batch": step.settings.batch_size,
        "training_seconds": seconds,
        "tokens_per_second": tokens / seconds,
        "epochs": tokens / len(dataset.tokens),
        "curve": [[last, history.mean_loss(last - every, last)] for last in range(every, done + 1, every)],
    }


def write_text(folder: Path, package: str, length: int, held_out: int) -> dict[str, EncodedDataset]:
    """Write the tokens of text and return each split as windows of `length` characters.

    Whole documents are held out, in the order of a hash of their names, until they have `held_out` characters.
    Docstrings repeat themselves across modules, so some held-out sentences are in the training text, too.
    """
    tokenizer = Text8()
    documents = sorted(
        read_docstrings([package]), key=lambda document: hashlib.sha256(document.name.encode()).hexdigest()
    )
    counts = dict.fromkeys(SPLITS, 0)
    folder.mkdir(parents=True)
    dtype = token_dtype(tokenizer.vocab_size)
    with ArrayFile(folder / "train-00000.npy", dtype) as train, ArrayFile(folder / "test-00000.npy", dtype) as test:
        for document in documents:
            words = np.trim_zeros(tokenizer.encode(document.text))  # without spaces at its ends
            tokens = np.append(words, tokenizer.eos_id)
            file, split = (test, "test") if counts["test"] < held_out else (train, "train")
            file.append(tokens)
            counts[split] += len(tokens)
    return {
        split: EncodedDataset(
            directory=folder,
            split=split,
            modality="text",
            vocab_size=tokenizer.vocab_size,
            shape=(length,),
            seq_len=length,
            tokenizer=tokenizer.kind,
            counts={"tokens": counts[split]},
            tokens=np.load(folder / f"{split}-00000.npy", mmap_mode="r", allow_pickle=False),
            drop_last=False,
            wrap_ids=(),
            classes=0,
            labels=None,
            class_names=(),
        )
        for split in SPLITS
    }
