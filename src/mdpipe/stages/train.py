"""Stage `train`: one run's model, its training curve and what it took."""

import csv
import io
import os
import sys
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import astuple, fields
from statistics import fmean

import torch
from torch import distributed

from mdpipe.data.artifacts.aside import write_aside
from mdpipe.data.artifacts.metrics import write_metrics
from mdpipe.data.artifacts.room import require_room
from mdpipe.data.encoded.batches import training_batch, training_labels
from mdpipe.data.encoded.dataset import EncodedDataset
from mdpipe.diffusion.noise import Noise
from mdpipe.networks.base import build_network, count_parameters
from mdpipe.networks.runtime import configure_runtime
from mdpipe.params import Params
from mdpipe.stages import paths
from mdpipe.stages.fingerprint import training_fingerprint
from mdpipe.stages.provenance import require_unchanged_inputs
from mdpipe.stages.trained import UNITS, compute_device, objective_of, save_run, told_classes
from mdpipe.training.checkpoint import saved_steps
from mdpipe.training.classes import with_classes_dropped
from mdpipe.training.history import HistoryRow
from mdpipe.training.interruption import InterruptedTrainingError
from mdpipe.training.launch import launch
from mdpipe.training.live import live
from mdpipe.training.lock import discard_finished, mark_finished
from mdpipe.training.loop import train as train_network
from mdpipe.training.progress import print_line, print_progress
from mdpipe.training.step import Batch
from mdpipe.training.world import WORLD_SIZE, World, joined

FLOAT = 4
"""Bytes of a number in float32."""

FINAL_ROWS = 20
"""Rows of the history that the final loss is the mean of: the loss of a single row depends on a few batches."""

CURVE_DIGITS = 6
"""Significant digits of the curve: more would only show the last bits of sums."""


def train(params: Params, run: str) -> None:
    """Write models/RUN, metrics/train/RUN.json and metrics/curves/RUN.csv; goes on from an earlier checkpoint.

    Starts the processes that `hardware` asks for, unless it is one of them itself.

    Raises:
        ValueError: the dataset is missing or broken, or the network does not fit it; or this is one of another number
            of processes.
        NonFiniteLossError: training diverged.
        SystemExit: it was interrupted, and the same command goes on; with the status that says so.
    """
    processes = params.runs[run].hardware.processes
    if processes > 1 and not distributed.is_torchelastic_launched():
        if WORLD_SIZE in os.environ:
            raise ValueError(
                f"runs.{run}.hardware.processes = {processes}, which `mdpipe train` starts itself, and WORLD_SIZE ="
                f" {os.environ[WORLD_SIZE]} is of another launcher: `unset RANK LOCAL_RANK WORLD_SIZE`"
            )
        launch(processes, [sys.executable, "-m", "mdpipe", "train", run])
        return
    with joined() as world:
        if world.size != processes:
            raise ValueError(
                f"runs.{run}.hardware.processes = {processes}, and torchrun has started {world.size}: start as many, or"
                " `unset TORCHELASTIC_RUN_ID WORLD_SIZE` where torchrun is long gone"
            )
        try:
            _train_in(world, params, run)
        except InterruptedTrainingError as interrupted:
            if world.leads:
                print_line(str(interrupted))
            raise SystemExit(interrupted.status) from None


def _train_in(world: World, params: Params, run: str) -> None:
    settings = params.runs[run]
    configure_runtime(settings.hardware.threads)  # Before the weights are drawn, which is a first computation.
    dataset = EncodedDataset.open(paths.encoded(settings.dataset), "train")
    objective = objective_of(settings, dataset.vocabulary)
    network = build_network(
        vocab_size=dataset.vocabulary,
        shape=dataset.shape,
        seed=params.seed,
        num_classes=told_classes(settings, dataset),
        causal=objective.causal,
        **settings.network.model_dump(),
    ).to(compute_device())
    parameters = count_parameters(network) + count_parameters(objective)
    fingerprint = training_fingerprint(params, run, dataset)
    scratch = paths.scratch(run, fingerprint)
    noise = Noise(params.seed, "train")
    if world.leads:
        # Weights, their average and two moments in every state; then the model itself, and its copy in DVC's cache.
        steps = saved_steps(scratch)
        states = settings.train.most_checkpoints(max(steps, default=0), len(steps)) - len(steps)
        require_room(scratch, parameters * FLOAT * (4 * states + 2), f"training {run} with {states} states to write")

    def batches(step: int, rows: range) -> Batch:
        drawn = (dataset, params.seed, step, settings.train.batch_size, rows)
        tokens = torch.from_numpy(training_batch(*drawn))
        if settings.condition is None:
            return Batch(tokens)
        labels = torch.from_numpy(training_labels(*drawn))
        told = with_classes_dropped(labels, settings.condition.dropout, dataset.classes, noise, step, rows)
        return Batch(tokens, told)

    with live(paths.events(run)) if world.leads else nullcontext(print_progress) as report:
        result = train_network(
            network,
            objective,
            batches,
            settings.train,
            settings.hardware,
            length=dataset.length,
            noise=noise,
            scratch=scratch,
            fingerprint=fingerprint,
            report=report,
            world=world,
        )
    if not world.leads:
        return
    save_run(run, settings, result.weights, result.objective_weights, dataset)
    write_aside(paths.curve(run), _curve(result.history).encode())
    metrics = {
        "run": run,
        "steps": settings.train.steps,
        "tokens": settings.train.steps * settings.train.batch_size * dataset.length,
        "parameters": parameters,
        "final_loss": fmean(row.loss for row in result.history[-FINAL_ROWS:]),
        "final_loss_rows": min(FINAL_ROWS, len(result.history)),
        "unit": UNITS[dataset.tokenizer],
    }
    write_metrics(paths.metrics("train", run), metrics)
    # No cache has the model if an input changed meanwhile, so its checkpoint is kept like that of an unfinished run.
    require_unchanged_inputs()
    # This state stays until the next run ends: if DVC is killed before it takes note, the next try finds it complete.
    for other in paths.scratches(run):
        if other != scratch:
            discard_finished(other)
    mark_finished(scratch)


def _curve(history: Iterable[HistoryRow]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(field.name for field in fields(HistoryRow))
    for row in history:
        writer.writerow(f"{value:.{CURVE_DIGITS}g}" for value in astuple(row))
    return text.getvalue()
