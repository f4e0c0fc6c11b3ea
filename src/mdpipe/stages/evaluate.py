"""Stage `evaluate`: the likelihood bound of a run's own held-out split."""

import io

import numpy as np

from mdpipe.data.artifacts.files import atomic_write
from mdpipe.data.artifacts.metrics import write_metrics
from mdpipe.data.dataset import EncodedDataset
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.evaluation.likelihood import likelihood_bound
from mdpipe.networks.runtime import configure_runtime
from mdpipe.params import Params
from mdpipe.pipeline import paths
from mdpipe.stages.bound_metrics import bound_metrics
from mdpipe.stages.model_io import load_run


def evaluate(params: Params, run: str) -> None:
    """Bound the whole split; write metrics/evaluate/RUN.json and evaluations/RUN.npy.

    The array is float64 (N, 2): nats and tokens of every example, by which two runs are compared example by example.
    All runs are given the same times and masks, which makes such differences sharper.

    Raises:
        ValueError: the model or the dataset is missing or broken.
    """
    settings = params.runs[run].evaluate
    configure_runtime(threads=1)
    trained = load_run(run)
    dataset = EncodedDataset.open(paths.encoded(trained.dataset), settings.split)
    noise = CounterRNG(params.seed, "evaluate")
    condition = np.asarray(dataset.require_labels()) if trained.classes else None
    likelihood = likelihood_bound(trained.objective, trained.network, dataset, settings, noise, condition)
    metrics = {
        "run": run,
        "dataset": trained.dataset,
        "split": settings.split,
        "seed": params.seed,
        **bound_metrics(trained, likelihood, dataset.counts),
    }
    file = io.BytesIO()
    np.save(file, np.stack([likelihood.per_example, likelihood.sizes], axis=1), allow_pickle=False)
    atomic_write(paths.evaluation(run), file.getvalue())
    write_metrics(paths.metrics("evaluate", run), metrics)
