"""Stage `evaluate`: the likelihood bound of a run's own held-out split."""

from mdpipe.data.encoded import EncodedDataset
from mdpipe.diffusion.noise import Noise
from mdpipe.evaluation.likelihood import likelihood_bound
from mdpipe.params import Params
from mdpipe.reporting.metrics import write_metrics
from mdpipe.stages import paths
from mdpipe.stages.bounds import bound_metrics
from mdpipe.stages.trained import load_run
from mdpipe.training.determinism import make_deterministic


def evaluate(params: Params, run: str) -> None:
    """Bound the whole split; write metrics/evaluate/RUN.json.

    Raises:
        ValueError: the model or the dataset is missing or broken.
    """
    settings = params.runs[run].evaluate
    make_deterministic(threads=1)
    trained = load_run(run)
    dataset = EncodedDataset.open(paths.encoded(trained.dataset), settings.split)
    noise = Noise(params.seed, "evaluate")
    likelihood = likelihood_bound(trained.objective, trained.network, dataset, settings, noise)
    metrics = {
        "run": run,
        "dataset": trained.dataset,
        "split": settings.split,
        "seed": params.seed,
        **bound_metrics(trained, likelihood, dataset.counts),
    }
    write_metrics(paths.metrics("evaluate", run), metrics)
