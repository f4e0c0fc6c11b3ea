"""Stage `train`: train one run and write its model, training curve and metrics."""

import logging
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from torch import distributed, nn

from mdpipe.data.artifacts.files import check_disk_space, write_csv, write_record
from mdpipe.data.dataset import EncodedDataset
from mdpipe.data.training_batches import training_batch, training_labels
from mdpipe.diffusion.objectives.base import Objective
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.evaluation.likelihood import likelihood_bound
from mdpipe.networks.base import Network, NetworkSpec, build_network, count_parameters
from mdpipe.networks.runtime import compute_device, configure_runtime
from mdpipe.params import EstimatorConfig, Params, Run
from mdpipe.pipeline import paths
from mdpipe.pipeline.model_io import UNITS, num_classes, save_model
from mdpipe.pipeline.provenance import require_unchanged_inputs
from mdpipe.pipeline.run_hash import hash_training
from mdpipe.training.checkpoint import discard_finished, mark_finished, saved_steps
from mdpipe.training.distributed import WORLD_SIZE, InterruptedTrainingError, World, init_distributed, launch
from mdpipe.training.interface import check_interface
from mdpipe.training.loggers import LoggedRun, log_to_console, open_loggers
from mdpipe.training.loop import Batch, Batches, TrainResult, drop_labels
from mdpipe.training.loop import train as train_network
from mdpipe.training.validation import Validator

FLOAT32_BYTES = 4

FINAL_ROWS = 20
"""Rows of the history that the final loss averages: a single row depends on a few batches."""

logger = logging.getLogger(__name__)


def train(params: Params, run: str) -> None:
    """Train a run, or resume it from its newest checkpoint.

    Write models/RUN, the metrics and record train/RUN, and metrics/curves/RUN.csv. Start the number of processes in
    `hardware`, unless this is already one of them.

    Raises:
        ValueError: The dataset is missing or broken, or the network does not fit it, or another launcher has started a
            different number of processes.
        NonFiniteLossError: Training diverged.
        SystemExit: Training was interrupted and the same command resumes it; the status says so.
    """
    num_processes = params.runs[run].hardware.num_processes
    if num_processes > 1 and not distributed.is_torchelastic_launched():
        if WORLD_SIZE in os.environ:
            raise ValueError(
                f"runs.{run}.hardware.num_processes = {num_processes}, which `mdpipe train` starts itself, and"
                f" WORLD_SIZE = {os.environ[WORLD_SIZE]} is of another launcher: `unset RANK LOCAL_RANK WORLD_SIZE`"
            )
        launch(num_processes, [sys.executable, "-m", "mdpipe", "train", run])
        return
    with init_distributed() as world:
        if world.size != num_processes:
            raise ValueError(
                f"runs.{run}.hardware.num_processes = {num_processes}, and torchrun has started {world.size}: start as"
                " many, or `unset TORCHELASTIC_RUN_ID WORLD_SIZE` if torchrun is no longer running"
            )
        try:
            _train_in_world(world, params, run)
        except InterruptedTrainingError as interrupted:
            if world.is_main_process:
                logger.warning("%s", interrupted)
            raise SystemExit(interrupted.status) from None


def _train_in_world(world: World, params: Params, run: str) -> None:
    settings, seed = params.runs[run], params.seed_of(run)
    configure_runtime(settings.hardware.threads)  # Before the weights are initialized, which is a first computation.
    dataset = EncodedDataset.open(paths.encoded(settings.dataset), "train")
    objective = Objective.build(settings.objective, dataset.vocab_size)
    classes, is_causal = num_classes(settings, dataset), settings.objective.is_causal
    network = build_network(NetworkSpec(settings.network, dataset.vocab_size, dataset.shape, classes, is_causal), seed)
    check_interface(network)
    network.to(compute_device())
    num_parameters = count_parameters(network) + count_parameters(objective)
    run_hash = hash_training(params, run, dataset)
    checkpoint_dir = paths.checkpoint_dir(run, run_hash)
    if world.is_main_process:
        # A checkpoint has weights, their EMA and two moments; the model itself has a second copy in DVC's cache.
        steps = saved_steps(checkpoint_dir)
        new = settings.train.most_checkpoints(max(steps, default=0), len(steps)) - len(steps)
        size = num_parameters * FLOAT32_BYTES * (4 * new + 2)
        check_disk_space(checkpoint_dir, size, f"training {run} with {new} states to write")
    rng = CounterRNG(seed, "train")
    batches, validator = _build_batches(settings, dataset, seed, rng), _build_validator(params, run, network, objective)
    logged_run = LoggedRun(run, run_hash, settings.model_dump(mode="json"), paths.events(run))
    with open_loggers(logged_run) if world.is_main_process else nullcontext(log_to_console) as log_metrics:
        result = train_network(
            network,
            objective,
            batches,
            settings.train,
            settings.hardware,
            length=dataset.seq_len,
            rng=rng,
            checkpoint_dir=checkpoint_dir,
            run_hash=run_hash,
            validator=validator,
            log_metrics=log_metrics,
            world=world,
        )
    if world.is_main_process:
        save_model(run, settings, network, result.weights, result.objective_weights, dataset)
        _write_curve(paths.plot("curves", run), result)
        record = {
            "run": run,
            "steps": settings.train.steps,
            "tokens": settings.train.steps * settings.train.batch_size * dataset.seq_len,
            "num_parameters": num_parameters,
            "final_loss": fmean(row.loss for row in result.history[-FINAL_ROWS:]),
            "final_loss_rows": min(FINAL_ROWS, len(result.history)),
            "unit": UNITS[dataset.tokenizer],
        }
        write_record(record, paths.record("train", run), paths.metrics("train", run))
        # If an input has changed meanwhile, DVC does not cache the model, so its checkpoint is kept as if unfinished.
        require_unchanged_inputs()
        # This checkpoint stays until the next run ends, in case DVC is killed before it records the outputs.
        for other in paths.checkpoint_dirs(run):
            if other != checkpoint_dir:
                discard_finished(other)
        mark_finished(checkpoint_dir)


def _build_batches(settings: Run, dataset: EncodedDataset, seed: int, rng: CounterRNG) -> Batches:
    """Return the function that reads rows of a batch, with class labels if the run is conditioned on them."""

    def batches(step: int, rows: range) -> Batch:
        selection = (dataset, seed, step, settings.train.batch_size, rows)
        tokens = torch.from_numpy(training_batch(*selection))
        if settings.class_cond is None:
            return Batch(tokens)
        labels = torch.from_numpy(training_labels(*selection))
        return Batch(tokens, drop_labels(labels, settings.class_cond.label_dropout, dataset.classes, rng, step, rows))

    return batches


def _build_validator(params: Params, run: str, network: Network, objective: Objective) -> Validator | None:
    """Return what evaluates the run along the way, on examples of the validation split; None if nothing does."""
    settings = params.runs[run]
    if (validation := settings.train.validation) is None:
        return None
    held_out = EncodedDataset.open(paths.encoded(settings.dataset), "validation")
    tokens, labels = held_out.spaced_examples(validation.num_examples)
    total = held_out.tokens.size // held_out.stream_tokens  # Whole examples
    labels = None if settings.class_cond is None else labels
    documents = held_out.clusters[1][np.arange(len(tokens)) * total // len(tokens)]
    # A standard error needs two clusters: if all examples are of one document, they count as independent.
    clusters = documents if len(set(documents)) > 1 else None
    # Rows of equal length, which are read in their order as images are.
    examples = held_out.model_copy(update={"modality": "image", "tokens": tokens})
    estimator = EstimatorConfig(num_mc_samples=validation.num_mc_samples, batch_size=validation.batch_size)
    rng = CounterRNG(params.seed, "validation")  # Validations of all runs have the same samples, as evaluations do.

    def estimate(objective: Objective, network: nn.Module) -> tuple[float, float]:
        bits = likelihood_bound(objective, network, examples, estimator, rng, labels, clusters).bits_per_token()
        return bits.value, bits.stderr

    return Validator(network, objective, estimate, validation, settings.train.steps)


def _write_curve(path: Path, result: TrainResult) -> None:
    """Write the training curve, with the columns of validation and rows for its steps if there was any."""
    columns = ["step", "train/loss", "train/lr", "train/grad_norm"]
    rows: dict[int, list[float | None]] = {row.step: [row.loss, row.lr, row.grad_norm] for row in result.history}
    if result.validations:
        columns += ["validation/loss", "validation/stderr"]
        bounds = {bound.step: [bound.value, bound.stderr] for bound in result.validations}
        steps = sorted(rows.keys() | bounds.keys())
        rows = {step: [*rows.get(step, [None] * 3), *bounds.get(step, [None] * 2)] for step in steps}
    write_csv(path, columns, ((step, *values) for step, values in rows.items()))
