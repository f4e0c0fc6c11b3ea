"""Stage `evaluate`: the likelihood bound of a run's own held-out split."""

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdpipe.data.artifacts.files import atomic_write, write_csv, write_record
from mdpipe.data.dataset import EncodedDataset
from mdpipe.diffusion.objectives.base import Objective
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.evaluation.estimate import Estimate
from mdpipe.evaluation.likelihood import Bits, Likelihood, likelihood_bound
from mdpipe.evaluation.profile import CalibrationRow, MaskFractionRow, PositionRow, Profile
from mdpipe.networks.runtime import configure_runtime
from mdpipe.params import Params
from mdpipe.pipeline import paths
from mdpipe.pipeline.model_io import TrainedModel, load_model

MAX_WORD_BITS = 1000
"""Bits per word from which a perplexity per word is meaningless, as for text without spaces; 2^1024 is not a float."""
WORD_RATES = ("bits_per_word", "bits_per_word_stderr", "word_perplexity", "word_perplexity_stderr")


def evaluate(params: Params, run: str) -> None:
    """Bound the likelihood of the whole split; write metrics and record evaluate/RUN, evaluations/RUN.npy and plots.

    The array is float64 (N, 3 + 2 K): nats, tokens and cluster of every example, by which two runs are compared example
    by example, and for each of K further bounds the nats by two independent estimates. All runs use the same times and
    masks, which makes the errors of such differences smaller. The plots are metrics/mask_fraction/RUN.csv,
    metrics/position/RUN.csv and metrics/calibration/RUN.csv, the rows of a `Profile`.

    Raises:
        ValueError: The model or the dataset is missing or broken.
    """
    settings = params.runs[run].evaluate
    configure_runtime(threads=1)
    model = load_model(run)
    dataset = EncodedDataset.open(paths.encoded(model.dataset), settings.split)
    rng = CounterRNG(params.seed, "evaluate")
    class_labels = np.asarray(dataset.require_labels()) if model.num_classes else None
    clusters = dataset.clusters[1]
    profile = Profile(dataset.examples, dataset.seq_len)
    likelihood = likelihood_bound(
        model.objective, model.network, dataset, settings, rng, class_labels, clusters, profile
    )
    columns = [likelihood.per_example, likelihood.sizes, clusters]
    for bound in settings.bounds.values():
        objective = Objective.build(bound.objective, dataset.vocab_size)
        for half in ("first", "second"):
            half_rng = rng.child(f"bounds/{half}")
            further = likelihood_bound(objective, model.network, dataset, bound, half_rng, class_labels, clusters)
            columns.append(further.per_example)
    write_evaluation(paths.evaluation(run), columns)
    write_csv(paths.plot("mask_fraction", run), MaskFractionRow._fields, profile.mask_fractions(clusters))
    write_csv(paths.plot("position", run), PositionRow._fields, profile.positions(likelihood.per_example, clusters))
    write_csv(paths.plot("calibration", run), CalibrationRow._fields, profile.calibration(clusters))
    record = {
        "run": run,
        "dataset": model.dataset,
        "split": settings.split,
        "seed": params.seed_of(run),
        **bound_record(model, likelihood, dataset),
    }
    write_record(record, paths.record("evaluate", run), paths.metrics("evaluate", run))


def write_evaluation(path: Path, columns: Sequence[NDArray[Any]]) -> None:
    """Write columns (N,) of examples, the first ones nats, tokens and cluster, as float64 (N, number of columns)."""
    file = io.BytesIO()
    np.save(file, np.stack(columns, axis=1), allow_pickle=False)
    atomic_write(path, file.getvalue())


def bound_record(model: TrainedModel, likelihood: Likelihood, dataset: EncodedDataset) -> dict[str, Any]:
    """Return the bound in bits per token with its errors and parts; for text also the numbers to compare tokenizers."""
    counts = dataset.counts
    clustered_by, clusters = dataset.clusters
    record: dict[str, Any] = {
        "modality": model.modality,
        "class_cond": model.class_cond,
        "unit": model.unit,
        **vars(likelihood.bits_per_token()),
        "examples": likelihood.examples,
        "clusters": len(np.unique(clusters)),
        "clustered_by": clustered_by,
        "tokens": likelihood.tokens,
        "mc_estimator": likelihood.mc_estimator,
        "num_mc_samples": likelihood.num_mc_samples,
        "nfe": likelihood.nfe,
        "estimator": model.objective.estimator,
        "num_parameters": model.num_parameters,
    }
    if model.modality == "text":
        rates: dict[str, Bits | Estimate] = {
            "bits_per_byte": likelihood.bits_per(counts["bytes"]),
            "bits_per_char": likelihood.bits_per(counts["characters"]),
            "perplexity": likelihood.perplexity(),
        }
        if counts["words"]:
            rates["bits_per_word"] = word = likelihood.bits_per(counts["words"])
            if word.value < MAX_WORD_BITS:
                nats = Estimate(word.value, word.stderr).scale(math.log(2))
                rates["word_perplexity"] = nats.exponential()
        record |= dict.fromkeys(WORD_RATES) | {"bytes": counts["bytes"], "words": counts["words"]}
        for name, rate in rates.items():
            record |= {name: rate.value, f"{name}_stderr": rate.stderr}
    return record
